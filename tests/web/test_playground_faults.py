"""The playground where the server is slow, full, restarted, or serves something else by now."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, Route, expect

from models.repository import Repository
from tests.conftest import ServerProcess
from tests.web.conftest import CHUNK, loaded, sources


def until(page: Page, condition: Callable[[], bool]) -> None:
    """Lets the page go on until a condition holds that no element shows."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        page.wait_for_timeout(10)


def test_the_servers_word_is_shown(page: Page, site: ServerProcess) -> None:
    page.goto(site.url)
    loaded(page)
    refusal = {"status": 429, "detail": "4096 images wait, 4096 may; try again in 3 s"}
    page.route("**/v1/generate", lambda route: route.fulfill(status=429, json=refusal))
    page.click("#download-npy")
    expect(page.get_by_role("alert")).to_have_text(refusal["detail"])


def test_a_server_without_models_is_waited_for(page: Page, site: ServerProcess) -> None:
    answers = [{"models": []}]

    def answer(route: Route) -> None:
        if answers:
            route.fulfill(json=answers.pop())
        else:
            route.continue_()

    page.route("**/v1/models", answer)
    page.goto(site.url)
    expect(page.get_by_role("alert")).to_have_text("No model is served yet.")
    loaded(page)
    expect(page.locator("#message")).to_be_hidden()


def test_overload_is_said_and_then_got_over(page: Page, site: ServerProcess) -> None:
    problem = {"status": 429, "detail": "4096 images wait, allowed are 4096."}
    refusing = [True]

    def answer(route: Route) -> None:
        if refusing[0]:
            route.fulfill(status=429, json=problem, headers={"retry-after": "0"})
        else:
            route.continue_()

    page.route("**/images/*.png*", answer)
    page.goto(site.url)
    expect(page.get_by_role("alert")).to_contain_text("4096 images wait, allowed are 4096.")
    expect(page.get_by_role("alert")).to_contain_text("tries again")
    refusing[0] = False
    loaded(page)
    expect(page.locator("#message")).to_be_hidden()


def test_an_older_answer_never_takes_the_place_of_a_newer_one(
    page: Page, site: ServerProcess
) -> None:
    """The slider is at 1, 2 and 3 before the first answer: that of 2 is never asked for."""
    page.goto(f"{site.url}/#model=digits&seed=0&label=0&image=5")
    loaded(page)
    expect(page.locator("#large")).to_have_attribute("alt", "Seed 5")
    held: list[Route] = []
    asked: list[str] = []

    def hold(route: Route) -> None:
        asked.append(route.request.url)
        if "d0=1" in route.request.url and not held:
            held.append(route)
        else:
            route.continue_()

    page.route("**/images/5.png*d0=*", hold)
    with page.expect_request(lambda request: "5.png" in request.url and "d0=1" in request.url):
        page.evaluate(
            """() => {
                const slider = document.querySelector('#directions input[data-key="0"]');
                for (const units of ["1", "2", "3"]) {
                    slider.value = units;
                    slider.dispatchEvent(new Event("input"));
                }
            }"""
        )
    until(page, lambda: bool(held))
    held[0].continue_()
    expect(page.locator("#caption")).to_contain_text("slant +3.0")
    assert page.locator("#large").evaluate("image => image.src").endswith("&d0=3")
    assert not [url for url in asked if "d0=2" in url]


def test_the_answer_of_a_model_that_was_left_is_dropped(page: Page, site: ServerProcess) -> None:
    page.goto(f"{site.url}/#model=digits&seed=0&label=0")
    loaded(page)
    held: list[Route] = []
    page.route("**/v1/models/parts/units*", lambda route: held.append(route))
    with page.expect_request("**/v1/models/parts/units*"):
        page.select_option("#model", "parts")
    page.select_option("#model", "faces")
    loaded(page)
    assert all("/models/faces/" in source for source in sources(page))
    expect(page.locator("#provenance")).to_contain_text("faces")
    until(page, lambda: bool(held))
    with page.expect_response("**/v1/models/parts/units*"):
        for route in held:
            route.continue_()
    expect(page.locator("#provenance")).to_contain_text("faces")
    expect(page.locator("#model")).to_have_value("faces")


def test_a_restart_is_survived(
    page: Page,
    make_bundle: Callable[..., Any],
    start_server: Callable[..., ServerProcess],
    tmp_path: Path,
) -> None:
    """Killed, said in words, started again: the same page shows other images without a reload."""
    repository = Repository(tmp_path / "models")
    repository.publish("digits", make_bundle(num_classes=10))
    server = start_server(repository.root)
    page.goto(f"{server.url}/#model=digits&seed=0&label=0&image=1")
    loaded(page)
    page.evaluate("window.stayed = true")
    os.killpg(server.process.pid, signal.SIGKILL)
    server.process.wait()
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer.")
    page.fill("#seed", "5000")
    page.press("#seed", "Tab")
    page.wait_for_function("location.hash.includes('seed=5000')")
    # What is chosen meanwhile takes nothing back: the server is still lost.
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer.")
    assert isinstance(server.process.args, list)
    again = subprocess.Popen(
        [sys.executable, *server.process.args[1:]],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        expect(page.locator("#notice")).to_have_text("The server answers again.")
        page.wait_for_function(
            f"""() => {{
                const shown = [...document.querySelectorAll("#images img")].slice(0, {CHUNK});
                return shown.length === {CHUNK} && shown.every(i => i.complete && i.naturalWidth);
            }}"""
        )
        expect(page.get_by_role("alert")).to_be_hidden()
        assert page.evaluate("stayed")
        assert sources(page)[0].split("?")[0].endswith("/5000.png")
    finally:
        os.killpg(again.pid, signal.SIGKILL)  # its workers, too
        again.wait()


def test_a_new_version_is_said_and_shown_when_asked_for(
    page: Page,
    make_bundle: Callable[..., Any],
    start_server: Callable[..., ServerProcess],
    tmp_path: Path,
) -> None:
    repository = Repository(tmp_path / "models")
    repository.publish("digits", make_bundle(num_classes=10))
    server = start_server(repository.root, "--reload-interval-s", "0.2")
    page.goto(f"{server.url}/#model=digits&seed=0&label=0")
    loaded(page)
    before = sources(page)
    repository.publish("digits", make_bundle(num_classes=10, weights_seed=9))
    notice = page.locator("#notice")
    expect(notice).to_contain_text("digits is now version 2; these images are of version 1.")
    assert sources(page) == before  # nothing changes under the eyes
    notice.get_by_role("button", name="Show version 2").click()
    page.wait_for_function("() => document.querySelector('#images img').src.includes('version=2')")
    loaded(page)
    expect(page.locator("#provenance")).to_contain_text("version 2")
    expect(notice).to_be_hidden()
    assert json.loads(server.get("/v1/models").text)["models"][0]["version"] == 2
