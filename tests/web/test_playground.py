"""The playground, as a person uses it in Chromium."""

import io
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.conftest import ServerProcess, free_port
from tests.serving.conftest import make_key
from tests.support import HTTP

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
    assert HTTP.get(tiles[5]).content == wanted
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


@pytest.fixture
def keyed(
    site: ServerProcess, start_server: Callable[..., ServerProcess], tmp_path: Path
) -> tuple[ServerProcess, str]:
    """A server of the same models that needs a key, and the key."""
    key = make_key(tmp_path / "keys", "someone")
    arguments = site.process.args
    assert isinstance(arguments, list)
    repository = Path(arguments[arguments.index("--repository") + 1])
    return start_server(repository, "--api-keys", str(tmp_path / "keys")), key


def test_a_key_opens_what_needs_one(
    page: Page, keyed: tuple[ServerProcess, str], tmp_path: Path, shots: Shots
) -> None:
    server, key = keyed
    page.goto(server.url)
    expect(page.get_by_role("alert")).to_have_text("Enter an API key.")
    expect(page.locator("#key")).to_be_focused()
    expect(page.locator("#seed")).to_be_hidden()  # of no use yet
    shots(page, "locked")
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("holds no key that is in force")
    page.fill("#key", key)
    page.keyboard.press("Enter")
    loaded(page)
    expect(page.get_by_role("alert")).to_be_hidden()
    expect(page.locator("#metrics")).to_be_hidden()  # a link can't bring the key
    page.locator("#images button").nth(3).click()
    page.click("#copy-curl")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert key not in copied
    expect(page.locator("#copy-curl")).to_have_attribute("title", re.compile("variable KEY"))
    subprocess.run(
        ["bash", "-euc", copied], cwd=tmp_path, env={**os.environ, "KEY": key}, check=True
    )
    wanted = server.post(
        "/v1/generate",
        json={"model": "digits", "seeds": [3], "labels": 0},
        headers={"authorization": f"Bearer {key}"},
    )
    assert (tmp_path / "image.png").read_bytes() == wanted.content


def test_metrics_are_linked_where_the_link_leads_to_them(
    page: Page, site: ServerProcess, start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    page.goto(site.url)
    with page.expect_response("**/metrics") as answered:
        page.click("#metrics")
    assert answered.value.ok
    (tmp_path / "models").mkdir()
    flags = ("--metrics-port", str(free_port()))
    elsewhere = start_server(tmp_path / "models", *flags, ready=False)
    elsewhere.wait_until("/livez", 200)
    page = page.context.new_page()
    with page.expect_response("**/openapi.json"):
        page.goto(elsewhere.url)
    page.wait_for_load_state("networkidle")
    expect(page.get_by_role("alert")).to_have_text("No model is served yet.")
    expect(page.locator("#metrics")).to_be_hidden()


def test_pages_are_kept_and_may_load_nothing_else(site: ServerProcess) -> None:
    for path in ("/", "/docs", "/web/playground.js", "/web/style.css"):
        reply = site.get(path)
        assert "default-src 'self'" in reply.headers["content-security-policy"]
        again = site.get(path, headers={"if-none-match": reply.headers["etag"]})
        assert again.status_code == 304
    assert site.get("/web/..%2f..%2fpyproject.toml").status_code == 404
    assert site.get("/web/none.js").status_code == 404
