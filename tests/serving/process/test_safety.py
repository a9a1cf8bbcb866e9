"""What a client names stays in the repository, and nothing that comes is unpickled."""

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def outside(tiny_repository: Path) -> Iterator[Path]:
    """A model that could be served, beside the repository."""
    folder = tiny_repository.parent / f"{tiny_repository.name}-outside"
    shutil.copytree(tiny_repository / "grey", folder)
    yield folder
    shutil.rmtree(folder)


def test_a_models_name_does_not_lead_out_of_the_repository(server: Any, outside: Path) -> None:
    names = [f"../{outside.name}", str(outside), f"grey/../../{outside.name}", "grey/../grey"]
    names += ["..", ".", "", "grey/1", "grey\0", "./grey", "GREY", "grey ", "grey%00", "*"]
    for name in names:
        asked = server.generate(model=name, seeds=[1])
        assert (asked.status_code, asked.json()["type"][-13:]) == (404, "unknown-model"), name
        for path in ("/v1/models/{}", "/v1/models/{}/images/1.png"):
            quoted = quote(name, safe="").replace(".", "%2E")  # else the client resolves the dots
            response = server.get(path.format(quoted))
            assert response.status_code == 404, (path, name)
            assert "x-model" not in response.headers


def test_no_version_or_file_leads_out_either(server: Any) -> None:
    for version in ("../1", "1/../2", "-1", "1e0", "0x1", "+1", " 1"):
        response = server.get(f"/v1/models/grey?version={quote(version, safe='')}")
        assert response.status_code in (400, 404), version
    for file in ("..%2F1.png", "1.png%2F..", "manifest.json", "%2e%2e"):
        assert server.get(f"/v1/models/grey/images/{file}").status_code in (400, 404), file


def test_nothing_is_unpickled() -> None:
    """LitServe's queues would; no row travels through them."""
    for path in [*ROOT.glob("serving/**/*.py"), *ROOT.glob("models/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
                names = {module, *(alias.name for alias in node.names)}
                assert not names & {"pickle", "marshal", "shelve", "dill", "joblib", "yaml"}, path
            if isinstance(node, ast.Call) and any(k.arg == "allow_pickle" for k in node.keywords):
                (value,) = [k.value for k in node.keywords if k.arg == "allow_pickle"]
                assert isinstance(value, ast.Constant), path
                assert value.value is False, path
