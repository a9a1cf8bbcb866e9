"""Everything that openapi.json allows, and much that it doesn't, from schemathesis' generators.

FUZZ_EXAMPLES sets how many are drawn for each operation, beside those that cover its description.
"""

import os
import re
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

NUM_EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "20")
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
)
# Not to be had: what isn't supported (501), and images in the time that a request allows (504).
CONFIG = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 501, 504]
"""


def test_whatever_is_asked_is_answered_as_documented(
    make_bundle: Callable[..., Bundle], tmp_path: Path, start_server: Callable[..., Any]
) -> None:
    repository = Repository(tmp_path / "models")
    repository.publish(
        "digits", make_bundle(num_classes=3, directions=True)
    )  # as the examples call it
    server = start_server(repository.root, "--jobs-folder", str(tmp_path / "jobs"))
    tool = Path(sys.executable).with_name("schemathesis")
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    arguments = ["--checks", ",".join(CHECKS), "--phases", "coverage,fuzzing"]
    arguments += ["--max-examples", NUM_EXAMPLES, "--request-timeout", "10", "--no-color"]
    ran = subprocess.run(
        [tool, "run", server.url + "/openapi.json", *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=280,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-6000:]
    counted = re.search(r"Selected: (\d+)/\1\n\s*Tested: (\d+)\n", ran.stdout)
    assert counted, ran.stdout[-6000:]
    assert counted[1] == counted[2], ran.stdout[-6000:]
    assert int(counted[2]) >= 54
    log = server.log.read_text()
    assert "unhandled exception" not in log
    assert "Traceback" not in log
    # It was alive all the time, and not everything was refused.
    assert metric(server, "saddlepoint_rows_generated_total") > 0
