"""The playground, as a person uses it in Chromium."""

import base64
import io
import json
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.conftest import ServerProcess

Shots = Callable[[Page, str], None]
PAGE = 48


def loaded(page: Page) -> None:
    """All images are there."""
    page.wait_for_function(
        f"""() => {{
            const shown = [...document.querySelectorAll("#images img")];
            return shown.length === {PAGE} && shown.every(i => i.complete && i.naturalWidth);
        }}"""
    )


def sources(page: Page) -> list[str]:
    found: list[str] = page.eval_on_selector_all("#images img", "all => all.map(i => i.src)")
    return found


def test_it_shows_the_images_of_the_api(page: Page, site: ServerProcess, shots: Shots) -> None:
    page.goto(site.url)
    loaded(page)
    shots(page, "light")
    tiles = sources(page)
    assert len(tiles) == PAGE
    wanted = site.generate(model="digits", seeds=[5], labels=0).content
    assert httpx.get(tiles[5]).content == wanted
    expect(page.locator("#provenance")).to_contain_text("digits, version 1, digest")
    expect(page.locator("#provenance")).to_contain_text("48 images in")
    page.emulate_media(color_scheme="dark")
    shots(page, "dark")
    page.set_viewport_size({"width": 390, "height": 844})
    shots(page, "phone")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_what_is_asked_for_stands_in_the_url(page: Page, site: ServerProcess) -> None:
    page.goto(site.url)
    loaded(page)
    before = sources(page)
    page.select_option("#label", "7")
    page.fill("#seed", "18446744073709551000")
    page.press("#seed", "Tab")
    page.locator("#psi").fill("0.5")
    page.locator("#psi").dispatch_event("change")
    loaded(page)
    shown = sources(page)
    assert not set(shown) & set(before)
    assert "18446744073709551047.png?version=1&label=7&truncation=0.5" in shown[-1]
    assert page.url.endswith("#model=digits&seed=18446744073709551000&label=7&psi=0.5")
    other = page.context.new_page()
    other.goto(page.url)
    loaded(other)
    assert sources(other) == shown
    page.get_by_role("button", name="Before").click()
    expect(page.locator("#seed")).to_have_value("18446744073709550952")


def test_another_model_has_its_own_controls(page: Page, site: ServerProcess) -> None:
    page.goto(site.url)
    expect(page.locator("#label-field")).to_be_visible()
    page.select_option("#model", "faces")
    expect(page.locator("#label-field")).to_be_hidden()
    loaded(page)
    assert all("/v1/models/faces/" in source for source in sources(page))


def test_images_are_chosen_and_walked_between(
    page: Page, site: ServerProcess, shots: Shots
) -> None:
    page.goto(site.url)
    loaded(page)
    first = page.locator("#images button").nth(3)
    first.focus()
    page.keyboard.press("Enter")  # no mouse is needed
    expect(first).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#caption")).to_have_text("Seed 3, class class 0")
    page.click("#copy-curl")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == (
        f"curl -s '{site.url}/v1/models/digits/images/3.png?version=1&label=0' -o image.png"
    )
    page.locator("#images button").nth(8).click()
    with page.expect_response("**/v1/interpolate") as answered:
        page.click("#walk")
    request = json.loads(answered.value.request.post_data or "")
    assert request["seeds"] == [3, 8]
    assert request["loop"] is True
    expect(page.locator("#caption")).to_contain_text("A walk from seed 3 to 8")
    page.wait_for_function("document.getElementById('large').src.startsWith('blob:')")
    shots(page, "walk")
    page.click("#clear")
    expect(page.locator("#chosen")).to_be_hidden()


def test_what_is_shown_can_be_kept(page: Page, site: ServerProcess) -> None:
    page.goto(site.url + "/#model=faces&seed=9007199254740993")  # beyond what a double holds
    loaded(page)
    with page.expect_download() as kept:
        page.click("#download-npy")
    with open(kept.value.path(), "rb") as file:
        images = np.load(io.BytesIO(file.read()))
    seeds = list(range(9007199254740993, 9007199254740993 + PAGE))
    wanted = site.generate(model="faces", seeds=seeds, format="npy").content
    assert (images == np.load(io.BytesIO(wanted))).all()
    with page.expect_download() as kept:
        page.click("#download-grid")
    with open(kept.value.path(), "rb") as file:
        assert Image.open(io.BytesIO(file.read())).size == (7 * 16, 7 * 16)


@pytest.mark.parametrize("seed", ["x", "-1", str(2**64)])
def test_a_seed_that_is_none_is_explained(page: Page, site: ServerProcess, seed: str) -> None:
    page.goto(site.url)
    loaded(page)
    page.fill("#seed", seed)
    page.press("#seed", "Tab")
    expect(page.locator("#message")).to_contain_text("A seed is a whole number in 0 ..")


def test_the_servers_word_is_shown(page: Page, site: ServerProcess) -> None:
    page.goto(site.url)
    loaded(page)
    refusal = {"status": 429, "detail": "4096 images wait, 4096 may; try again in 3 s"}
    page.route("**/v1/generate", lambda route: route.fulfill(status=429, json=refusal))
    page.click("#download-npy")
    expect(page.get_by_role("alert")).to_have_text(refusal["detail"])


def test_a_server_without_models_is_waited_for(page: Page, site: ServerProcess) -> None:
    answers = [{"models": []}]

    def answer(route: Any) -> None:
        if answers:
            route.fulfill(json=answers.pop())
        else:
            route.continue_()

    page.route("**/v1/models", answer)
    page.goto(site.url)
    expect(page.get_by_role("alert")).to_have_text("No model is served yet.")
    loaded(page)
    expect(page.locator("#message")).to_be_hidden()


def test_a_key_opens_what_needs_one(
    browser: Browser, site: ServerProcess, start_server: Callable[..., Any], tmp_path: Any
) -> None:
    import subprocess
    import sys

    keys = tmp_path / "keys"
    made = subprocess.run(
        [sys.executable, "-m", "serving.keys", "add", keys, "someone"],
        capture_output=True,
        text=True,
        check=True,
    )
    key = made.stdout.split()[-1]
    log = site.process.args
    repository = log[log.index("--repository") + 1]
    server = start_server(repository, "--api-keys", str(keys))
    page = browser.new_page()
    page.goto(server.url)
    expect(page.get_by_role("alert")).to_contain_text("Authorization")
    page.fill("#key", key)
    page.press("#key", "Tab")
    loaded(page)
    page.close()


def test_pages_are_kept_and_may_load_nothing_else(site: ServerProcess) -> None:
    for path in ("/", "/docs", "/web/playground.js", "/web/style.css"):
        reply = site.get(path)
        assert "default-src 'self'" in reply.headers["content-security-policy"]
        again = site.get(path, headers={"if-none-match": reply.headers["etag"]})
        assert again.status_code == 304
    assert site.get("/web/..%2f..%2fpyproject.toml").status_code == 404
    assert site.get("/web/none.js").status_code == 404


def test_the_description_shows_every_route(page: Page, site: ServerProcess, shots: Shots) -> None:
    page.goto(site.url + "/docs")
    paths = site.get("/openapi.json").json()["paths"]
    expect(page.locator("h2")).to_have_count(sum(len(methods) for methods in paths.values()))
    expect(page.locator("#generate")).to_have_text("POST /v1/generate")
    expect(page.locator("body")).to_contain_text("Integers in 0 .. 2**64 - 1")
    shots(page, "docs")
    assert base64.b64encode(page.screenshot())  # it can be drawn
