"""A Chromium and a server for the tests of the pages."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Request, sync_playwright

from models.repository import Repository
from tests.conftest import ServerProcess, server_process

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
    """digits: conditional, grey; faces: unconditional RGB."""
    root = tmp_path_factory.mktemp("web")
    repository = Repository(root)
    repository.publish("digits", make_bundle(num_classes=10, directions=True))
    repository.publish("faces", make_bundle(size=16, channels=3, weights_seed=2))
    with server_process(root, tmp_path_factory.mktemp("log")) as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that must stay on the server's own origin and log no error."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
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


@pytest.fixture
def shots() -> Callable[[Page, str], None]:
    """Keeps a picture of the page where SCREENSHOTS names a folder."""
    folder = os.environ.get("SCREENSHOTS")

    def shoot(page: Page, name: str) -> None:
        if folder:
            page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)

    return shoot
