"""Everything that openapi.json allows, and much that it doesn't, from schemathesis' generators."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.bundle import Bundle
from models.repository import Repository
from tests.support import metric

pytestmark = pytest.mark.chaos

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)


def test_whatever_is_asked_is_answered_as_documented(
    make_bundle: Callable[..., Bundle], tmp_path: Path, start_server: Callable[..., Any]
) -> None:
    repository = Repository(tmp_path / "models")
    repository.publish("tiny", make_bundle(num_classes=3))
    server = start_server(repository.root)
    tool = Path(sys.executable).with_name("schemathesis")
    arguments = ["--checks", ",".join(CHECKS), "--phases", "coverage,fuzzing"]
    arguments += ["--max-examples", "60", "--request-timeout", "10", "--no-color"]
    ran = subprocess.run(
        [tool, "run", server.url + "/openapi.json", *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=200,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-6000:]
    assert "Tested: 26" in ran.stdout
    log = server.log.read_text()
    assert "unhandled exception" not in log
    assert "Traceback" not in log
    # It was alive all the time, and not everything was refused.
    assert metric(server, "saddlepoint_rows_generated_total") > 0
