"""docs/api.md: every block, as it stands, against a real server."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from models.repository import Repository
from tests.conftest import ServerProcess, server_process

TEXT = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", TEXT, re.M | re.S))


def blocks(language: str) -> list[Any]:
    found = [
        pytest.param(code, id=f"{title.partition(':')[0]}-{number}")
        for title, body in SECTIONS.items()
        for number, code in enumerate(re.findall(rf"```{language}\n(.*?)```", body, re.S))
    ]
    assert found
    return found


@pytest.fixture(scope="module")
def digits(
    make_bundle: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """What `make serve` serves, but tiny."""
    root = tmp_path_factory.mktemp("digits")
    Repository(root).publish("digits", make_bundle(num_classes=10))
    with server_process(root, tmp_path_factory.mktemp("log")) as running:
        running.generate(seeds=[1], labels=1)  # so that there is something to count
        yield running


def at(server: ServerProcess, code: str) -> str:
    return code.replace("127.0.0.1:8000", server.url.removeprefix("http://"))


@pytest.mark.parametrize("code", blocks("sh"))
def test_a_shell_runs_it(digits: ServerProcess, code: str, tmp_path: Path) -> None:
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", at(digits, code)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr + ran.stdout
    assert all(path.stat().st_size > 60 for path in tmp_path.iterdir())


@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs_it(digits: ServerProcess, code: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", at(digits, code)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("code", blocks("js"))
def test_a_browser_runs_it(digits: ServerProcess, code: str, page: Page) -> None:
    page.goto(digits.url)
    page.evaluate(f"(async () => {{ {code} }})()")
