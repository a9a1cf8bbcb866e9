"""A lab in a process of its own, and a browser that looks at it."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from tests.web.conftest import PATIENCE_MS, browser, shots

__all__ = ["browser", "shots"]

ROOT = Path(__file__).parents[3]
DEADLINE_S = 200
SMALL = "network.width_G=8&network.width_D=8&batch_size=16"


@dataclass
class RunningLab:
    """The server's process and its address."""

    process: "subprocess.Popen[str]"
    url: str


@contextmanager
def start(*options: str, port: int = 0) -> Iterator[RunningLab]:
    """A lab, which has ended when the block has."""
    command = [sys.executable, "-m", "training.lab", "--port", str(port), *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield RunningLab(process, process.stdout.readline().split()[4])
        finally:
            process.terminate()


@pytest.fixture(autouse=True, scope="module")
def patience() -> Iterator[None]:
    """A game begins within seconds only where nobody else works."""
    expect.set_options(timeout=1000 * DEADLINE_S)
    yield
    expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def running() -> Iterator[RunningLab]:
    """More games than the tests leave behind: one ends a little after its page."""
    with start("--games", "40") as lab:
        yield lab


@pytest.fixture
def new_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens pages that may log no error, but those that a test expects."""
    contexts, wrong = [], []

    def note(message: ConsoleMessage) -> None:
        if message.type == "error" and "WebSocket" not in message.text:
            wrong.append(message.text)

    def opened(url: str, **options: Any) -> Page:
        context = browser.new_context(viewport={"width": 1200, "height": 900}, **options)
        context.set_default_timeout(1000 * DEADLINE_S)
        contexts.append(context)
        page = context.new_page()
        page.on("console", note)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def until(page: Page, expression: str) -> Any:
    """Waits until the expression is true on the page: its policy forbids Playwright's own wait."""
    end = time.monotonic() + DEADLINE_S
    while not (found := page.evaluate(expression)):
        assert time.monotonic() < end, f"{expression} is still {found!r}"
        page.wait_for_timeout(30)
    return found


def playing(page: Page, rounds: int, view: int = 0) -> str:
    """Plays until a game has come to a round; returns its digest."""
    until(page, "!!window.lab?.views.every((view) => view.frame)")
    if page.get_by_role("button", name="Play", exact=True).is_visible():
        page.get_by_role("button", name="Play", exact=True).click()
    until(page, f"lab.views[{view}].frame.head.round >= {rounds}")
    digest: str = page.evaluate(f"lab.views[{view}].frame.head.digest")
    return digest
