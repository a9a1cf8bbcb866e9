"""The API's description in a browser: every route, and examples that run as they are shown."""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from models.repository import Repository
from tests.conftest import ServerProcess, server_process
from tests.serving.conftest import make_key

Shots = Callable[[Page, str], None]


@pytest.fixture(scope="module")
def controlled(
    make_bundle: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """No model is called as in the examples, or takes labels as theirs does."""
    root = tmp_path_factory.mktemp("controlled")
    Repository(root).publish("faces", make_bundle(size=16, channels=3))
    Repository(root).publish("grey", make_bundle())
    flags = ("--model-control", "clients")
    with server_process(root, tmp_path_factory.mktemp("log"), *flags) as running:
        yield running


def shown(page: Page, server: ServerProcess) -> list[str]:
    """The examples of a server's /docs."""
    page.goto(server.url + "/docs")
    expect(page.locator("#generate")).to_have_text("POST /v1/generate")
    lines: list[str] = page.locator("pre").all_text_contents()
    return lines


def run(line: str, folder: Path, **environ: str) -> str:
    """Runs a line as it is; its answer's status must be good."""
    (folder / ".curlrc").write_text('write-out = "%{stderr}%{http_code}"\n')
    environ = {**os.environ, "CURL_HOME": str(folder), **environ}
    ran = subprocess.run(
        ["bash", "-euc", line], cwd=folder, env=environ, capture_output=True, timeout=60
    )
    assert ran.returncode == 0, (line, ran.stderr)
    assert ran.stderr == b"200", (line, ran.stderr, ran.stdout)
    return ran.stdout.decode()


def test_every_example_runs_as_it_is_shown(
    page: Page, controlled: ServerProcess, tmp_path: Path
) -> None:
    lines = shown(page, controlled)
    paths = controlled.get("/openapi.json").json()["paths"]
    operations = [operation for methods in paths.values() for operation in methods.values()]
    assert len(lines) == sum("200" in operation["responses"] for operation in operations) > 25
    assert not any("{" in line.partition("-d")[0] for line in lines)  # nothing is left to fill in
    assert any(re.search("/v1/models/(faces|grey)/images/42.png", line) for line in lines)
    for line in lines:
        run(line, tmp_path)
    made = {path.name for path in tmp_path.iterdir() if path.suffix in (".png", ".webp")}
    assert made == {"generate.png", "predict.png", "interpolate.webp", "image.png"}
    assert all((tmp_path / name).stat().st_size > 60 for name in made)


def test_where_keys_are_needed_the_examples_take_one(
    page: Page,
    make_bundle: Callable[..., Any],
    start_server: Callable[..., ServerProcess],
    tmp_path: Path,
    shots: Shots,
) -> None:
    repository = Repository(tmp_path / "models")
    repository.publish("digits", make_bundle(num_classes=10))
    key = make_key(tmp_path / "keys", "someone")
    server = start_server(repository.root, "--api-keys", str(tmp_path / "keys"))
    lines = shown(page, server)
    shots(page, "docs-keys")
    expect(page.locator("main")).to_contain_text("This server needs an API key")
    guarded = [line for line in lines if "Authorization: Bearer $KEY" in line]
    assert {line for line in lines if "livez" in line or "/docs" in line}.isdisjoint(guarded)
    assert len(guarded) > 15
    assert not any("repository/models" in line for line in lines)  # 403: nothing to show
    for line in lines:
        run(line, tmp_path, KEY=key)


def test_an_example_can_be_copied(page: Page, controlled: ServerProcess) -> None:
    lines = shown(page, controlled)
    page.get_by_role("button", name="Copy").first.click()
    assert page.evaluate("navigator.clipboard.readText()") == lines[0]
    assert re.search('"model":"(faces|grey)"', lines[0])
    assert "labels" not in lines[0]


def test_it_shows_every_route_and_its_fields(page: Page, site: ServerProcess, shots: Shots) -> None:
    shown(page, site)
    paths = site.get("/openapi.json").json()["paths"]
    operations = [operation for methods in paths.values() for operation in methods.values()]
    expect(page.locator("h3")).to_have_count(len(operations))
    expect(page.locator("#contents a")).to_have_count(len(operations))
    generate = page.locator("section", has=page.locator("#generate"))
    for words in (
        "Integers in 0 .. 2**64 - 1",
        "images[].data",
        "integer 1 .. 30000 (header)",
        "Headers: Retry-After",
    ):
        expect(generate).to_contain_text(words)
    model = page.locator("section", has=page.locator("#model"))
    expect(model).to_contain_text("candidate.share_percent")
    expect(model).to_contain_text("list of string or null")
    # What every route has is told once.
    expect(page.get_by_text("traceparent")).to_have_count(1)
    shots(page, "docs")
    page.set_viewport_size({"width": 390, "height": 844})
    shots(page, "docs-phone")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_route_has_an_address(page: Page, site: ServerProcess) -> None:
    page.goto(site.url + "/docs#v2_index")
    expect(page.locator("#v2_index")).to_be_in_viewport()
    page.locator("#contents a[href='#livez']").click()
    expect(page.locator("#livez")).to_be_in_viewport()
