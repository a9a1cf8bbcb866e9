"""docs/api.md: every block, as it stands, against a real server; every route, in every language."""

import contextlib
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from models.repository import Repository
from tests.conftest import ServerProcess, server_process
from tests.real_images import FULL

TEXT = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


def blocks(server: ServerProcess, language: str) -> list[str]:
    """All of a language, speaking to this server."""
    found = re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.M | re.S)
    host = server.url.removeprefix("http://")
    return [code.replace("127.0.0.1:8000", host) for code in found]


@pytest.fixture(scope="module")
def digits(
    make_bundle: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """What `make serve` serves, but tiny; clients may load and unload."""
    root = tmp_path_factory.mktemp("digits")
    bundle = make_bundle(num_classes=10, directions=True, units=True, encoder=FULL)
    for name in ("digits", "photos"):  # two, so that a request has to name one
        Repository(root).publish(name, bundle)
    jobs = tmp_path_factory.mktemp("jobs")
    flags = ("--model-control", "clients", "--jobs-folder", str(jobs))
    with server_process(root, tmp_path_factory.mktemp("log"), *flags) as running:
        running.generate(seeds=[1], labels=1)  # so that there is something to count
        yield running


def answered(server: ServerProcess) -> Counter[tuple[str, str]]:
    """Good answers so far, by method and route."""
    counts: Counter[tuple[str, str]] = Counter()
    pattern = r'^saddlepoint_http_requests_total\{method="(\w+)",route="(.*?)",status="200"\} (.*)$'
    for method, route, count in re.findall(pattern, server.get("/metrics").text, re.M):
        counts[method.lower(), route] = int(float(count))
    return counts


@contextlib.contextmanager
def all_routes_asked(server: ServerProcess) -> Iterator[None]:
    """What happens meanwhile asks every route that programs ask, with success."""
    paths = server.get("/openapi.json").json()["paths"]
    wanted = {
        (method, path)
        for path, operations in paths.items()
        for method, operation in operations.items()
        if "200" in operation["responses"] and method != "head" and path not in ("/", "/docs")
    }
    assert len(wanted) > 25
    before = answered(server)
    yield
    before["get", "/metrics"] += 1  # by ourselves
    assert wanted - set(answered(server) - before) == set()


def test_a_shell_runs_every_block(digits: ServerProcess, tmp_path: Path) -> None:
    with all_routes_asked(digits):
        for number, code in enumerate(blocks(digits, "sh")):
            folder = tmp_path / str(number)
            folder.mkdir()
            ran = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", code],
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
            )
            assert ran.returncode == 0, code + ran.stderr + ran.stdout
            assert all(path.stat().st_size > 60 for path in folder.iterdir()), code


def test_python_runs_every_block(digits: ServerProcess, tmp_path: Path) -> None:
    with all_routes_asked(digits):
        for code in blocks(digits, "python"):
            ran = subprocess.run(
                [sys.executable, "-c", code],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
            )
            assert ran.returncode == 0, code + ran.stderr


def test_a_browser_runs_every_block(digits: ServerProcess, page: Page) -> None:
    with all_routes_asked(digits):
        for code in blocks(digits, "js"):
            page.goto(digits.url + "/web/style.css")  # it asks for nothing by itself
            page.evaluate(f"(async () => {{ {code} }})()")
