"""A Chromium and a server for the tests of the pages."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright

from models.repository import Repository
from tests.conftest import ServerProcess, server_process

CHUNK = 64
"""Images that the playground's wall loads at once, at the least."""
PATIENCE_MS = 60_000
"""A loaded machine is no failure."""
expect.set_options(timeout=PATIENCE_MS)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; skipped where there is none, unless REQUIRE_CHROMIUM says it must be.

    A module's, not the session's: while Playwright runs, nothing else may run an event loop here.
    """
    chromium = shutil.which("chromium")
    if chromium is None:
        reason = "chromium is missing: apt-get install chromium"
        if os.environ.get("REQUIRE_CHROMIUM"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def site(
    make_bundle: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """digits: conditional, grey; faces: RGB without classes; parts: units, two versions; styles."""
    root = tmp_path_factory.mktemp("web")
    repository = Repository(root)
    repository.publish("digits", make_bundle(num_classes=10, directions=True))
    repository.publish("faces", make_bundle(size=16, channels=3, weights_seed=2))
    for seed in (3, 4):
        repository.publish("parts", make_bundle(num_classes=3, units=True, weights_seed=seed))
    repository.publish("styles", make_bundle(size=16, channels=3, styles=True, weights_seed=5))
    with server_process(root, tmp_path_factory.mktemp("log")) as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that must stay on the server's own origin and log no error."""
    context = browser.new_context(viewport={"width": 1000, "height": 700})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.set_default_timeout(2 * PATIENCE_MS)
    opened = context.new_page()
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))

    def note(request: Request) -> None:
        if not _is_ours(request.url, opened.url):
            wrong.append(request.url)

    opened.on("request", note)
    yield opened
    context.close()
    assert wrong == []


def _is_ours(url: str, shown: str) -> bool:
    """Of the page's own origin, or made by it; the first request comes before there is a page."""
    origin = "/".join((url if shown == "about:blank" else shown).split("/")[:3])
    return url.startswith((origin, "blob:", "data:"))


def loaded(page: Page) -> None:
    """The wall's first images are there."""
    page.wait_for_function(
        f"""() => {{
            const shown = [...document.querySelectorAll("#images img")].slice(0, {CHUNK});
            return shown.length === {CHUNK} && shown.every(i => i.complete && i.naturalWidth);
        }}"""
    )


def sources(page: Page) -> list[str]:
    """The URLs of the wall's first images."""
    found: list[str] = page.eval_on_selector_all(
        "#images img", f"all => all.slice(0, {CHUNK}).map(i => i.src)"
    )
    return found


@pytest.fixture
def shots() -> Callable[[Page, str], None]:
    """Keeps a picture of the page where SCREENSHOTS names a folder."""
    folder = os.environ.get("SCREENSHOTS")

    def shoot(page: Page, name: str) -> None:
        if folder:
            page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)

    return shoot
