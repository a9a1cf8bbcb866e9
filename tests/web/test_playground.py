"""The playground's wall and its one large image, as a person uses them in Chromium."""

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

from models.image_metadata import with_metadata
from models.latents import latents
from tests.conftest import ServerProcess, free_port
from tests.serving.conftest import make_key
from tests.support import HTTP
from tests.web.conftest import CHUNK, loaded, sources

Shots = Callable[[Page, str], None]


def tile(page: Page, number: int) -> Any:
    return page.locator("#images button").nth(number)


def test_it_shows_the_images_of_the_api(page: Page, site: ServerProcess, shots: Shots) -> None:
    page.goto(site.url)
    loaded(page)
    shots(page, "light")
    wanted = site.generate(model="digits", seeds=[5], labels=0).content
    assert HTTP.get(sources(page)[5]).content == wanted
    expect(page.locator("#provenance")).to_contain_text("digits, version 1, digest")
    expect(page.locator("#timed")).to_contain_text(re.compile(r"^\d+ images in \d+ ms$"))
    page.emulate_media(color_scheme="dark")
    shots(page, "dark")
    page.set_viewport_size({"width": 360, "height": 780})
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
    assert "18446744073709551063.png?version=1&label=7&truncation=0.5" in shown[-1]
    assert page.url.endswith("#model=digits&seed=18446744073709551000&label=7&psi=0.5")
    other = page.context.new_page()
    other.goto(page.url)
    loaded(other)
    assert sources(other) == shown
    page.get_by_role("button", name="Before").click()
    expect(page.locator("#seed")).to_have_value("18446744073709550936")


STATES = [
    "model=parts&version=1&seed=3&label=2&psi=0.7&units_off=0,3&shuffle=7&sort=slant&tiles=s"
    "&image=18446744073709551615&stars=1,2&path=4,5&loop=1&against=2",
    "model=styles&seed=0&styles.from=18446744073709551615&styles.layers=0,3"
    "&styles.truncation=0.5,1,1,0.25&only=1&tiles=l&stars=9&corners=1,2,3,4&terms=5,6,7",
    "model=digits&seed=0&label=0&d0=1.5&d.class%3A1=-2",
]


@pytest.mark.parametrize("text", STATES)
def test_the_whole_state_makes_the_round_trip_to_the_byte(
    page: Page, site: ServerProcess, text: str
) -> None:
    page.goto(f"{site.url}/#{text}")
    page.wait_for_function("() => document.querySelectorAll('#images img').length > 0")
    expect(page.locator("#model")).to_have_value(text[6 : text.index("&")])
    assert page.evaluate("location.hash") == f"#{text}"


def test_another_model_has_its_own_controls(page: Page, site: ServerProcess) -> None:
    page.goto(site.url)
    expect(page.locator("#label-field")).to_be_visible()
    page.select_option("#model", "faces")
    expect(page.locator("#label-field")).to_be_hidden()
    loaded(page)
    assert all("/v1/models/faces/" in source for source in sources(page))
    for panel in ("#units", "#styles", "#versions", "#directions"):
        expect(page.locator(panel)).to_be_hidden()
    page.select_option("#model", "parts")
    for panel in ("#units", "#versions"):
        expect(page.locator(panel)).to_be_visible()


def test_the_wall_has_no_end(page: Page, site: ServerProcess) -> None:
    page.goto(f"{site.url}/#model=faces&seed=100")
    loaded(page)
    first = page.locator("#images button").count()
    page.locator("#wall").evaluate("wall => wall.scrollTo(0, wall.scrollHeight)")
    page.wait_for_function(f"() => document.querySelectorAll('#images button').length > {first}")
    seeds = page.eval_on_selector_all("#images button", "all => all.map(b => b.dataset.seed)")
    assert seeds == [str(100 + i) for i in range(len(seeds))]


def test_the_last_seed_ends_it(page: Page, site: ServerProcess) -> None:
    page.goto(f"{site.url}/#model=faces&seed={2**64 - 3}")
    expect(page.locator("#images button")).to_have_count(3)
    expect(page.locator("#images button").last).to_have_attribute("data-seed", str(2**64 - 1))


def test_a_shuffled_wall_is_the_same_for_its_url(page: Page, site: ServerProcess) -> None:
    page.goto(site.url)
    loaded(page)
    page.click("#shuffle")
    expect(page.locator("#shuffle")).to_have_attribute("aria-pressed", "true")
    loaded(page)
    shown = sources(page)
    assert len(set(shown)) == CHUNK
    assert shown != sorted(shown)
    other = page.context.new_page()
    other.goto(page.url)
    loaded(other)
    assert sources(other) == shown


def test_keys_alone_choose_and_star_and_leave(page: Page, site: ServerProcess) -> None:
    page.goto(site.url)
    loaded(page)
    tile(page, 0).focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(tile(page, 3)).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#caption")).to_have_text("Seed 3, class class 0")
    page.keyboard.press("s")
    expect(page.locator("#star")).to_have_attribute("aria-pressed", "true")
    page.wait_for_function("() => location.hash.endsWith('&image=3&stars=3')")
    page.keyboard.press("Tab")  # one stop of the Tab key, however many images there are
    expect(page.locator("#star")).to_be_focused()
    page.check("#only")
    expect(page.locator("#images button")).to_have_count(1)
    page.uncheck("#only")
    loaded(page)


def test_a_wall_is_sorted_by_what_its_pixels_say(page: Page, site: ServerProcess) -> None:
    page.goto(f"{site.url}/#model=digits&seed=0&label=1")
    loaded(page)
    page.select_option("#sort", "brightness")
    expect(page.locator("#wall-end")).to_contain_text("256 images, sorted by brightness")
    seeds = page.eval_on_selector_all("#images button", "all => all.map(b => +b.dataset.seed)")
    assert sorted(seeds) == list(range(256))
    body = {"model": "digits", "seeds": seeds, "labels": 1, "format": "npy"}
    images = np.load(io.BytesIO(site.generate(**body).content)).astype(float)
    means = images.mean((1, 2, 3))
    assert (np.diff(means) < 1e-3).all()


def test_the_chosen_image_can_be_made_again(page: Page, site: ServerProcess) -> None:
    page.goto(site.url)
    loaded(page)
    tile(page, 3).click()
    expect(page.locator("#large")).to_have_attribute("alt", "Seed 3")
    page.click("#copy-curl")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == (
        f"curl -s '{site.url}/v1/models/digits/images/3.png?version=1&label=0' -o image.png"
    )
    expect(page.locator("#classes button")).to_have_count(10)
    page.locator("#classes button").nth(4).click()
    expect(page.locator("#label")).to_have_value("4")
    with page.expect_download() as kept:
        page.click("#download-image")
    wanted = site.generate(model="digits", seeds=[3], labels=4).content
    assert Path(kept.value.path()).read_bytes() == wanted


def dropped(page: Page, data: bytes, name: str = "image.png") -> None:
    """Drops a file on the page."""
    page.evaluate(
        """([bytes, name]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
            const drop = new DragEvent("drop", { dataTransfer: transfer, cancelable: true });
            document.dispatchEvent(drop);
        }""",
        [list(data), name],
    )


def test_a_dropped_png_opens_what_it_shows(page: Page, site: ServerProcess) -> None:
    page.goto(site.url)
    loaded(page)
    big = 2**63 + 1
    styles = {"from": str(big), "layers": [1], "truncation": [1, 0.5, 1, 1]}
    made = site.generate(model="styles", seeds=[str(big + 1)], truncation=0.75, styles=styles)
    dropped(page, made.content)
    expect(page.locator("#caption")).to_contain_text(f"Seed {big + 1}")
    expect(page.locator("#notice")).to_have_text("Opened image.png.")
    page.click("#copy-url")
    assert HTTP.get(page.evaluate("navigator.clipboard.readText()")).content == made.content
    made = site.generate(model="digits", seeds=[7], labels=3, directions={"slant": 1.5})
    dropped(page, made.content)
    expect(page.locator("#caption")).to_have_text("Seed 7, class class 3, slant +1.5")
    made = site.generate(model="parts", version=1, seeds=[7], labels=1, units_off=[2, 0])
    file: Any = {"name": "a.png", "mimeType": "image/png", "buffer": made.content}
    page.set_input_files("#open-file", file)
    expect(page.locator("#caption")).to_have_text("Seed 7, class class 1, without units 0 2")
    expect(page.locator("#version")).to_have_value("1")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GIF89a", "This file is not a PNG."),
        (None, "This PNG does not say how it was made."),
        ({"model": "gone", "version": "1", "seed": "1"}, "model gone, which is not served here"),
        ({"model": "digits", "version": "9", "seed": "1"}, "version 9 of digits, which is not"),
        ({"model": "digits", "version": "1"}, "made of no single seed"),
    ],
)
def test_a_file_that_cannot_be_opened_is_explained(
    page: Page, site: ServerProcess, data: Any, words: str
) -> None:
    buffer = io.BytesIO()
    Image.new("L", (2, 2)).save(buffer, "png")
    if not isinstance(data, bytes):
        data = with_metadata(buffer.getvalue(), "png", data or {})
    page.goto(site.url)
    loaded(page)
    dropped(page, data)
    expect(page.get_by_role("alert")).to_contain_text(words)


def test_what_is_shown_can_be_kept(page: Page, site: ServerProcess) -> None:
    page.goto(site.url + "/#model=faces&seed=9007199254740993")  # beyond what a double holds
    loaded(page)
    with page.expect_download() as kept:
        page.click("#download-npy")
    with open(kept.value.path(), "rb") as file:
        images = np.load(io.BytesIO(file.read()))
    num = len(images)
    assert num >= CHUNK
    seeds = list(range(9007199254740993, 9007199254740993 + num))
    wanted = site.generate(model="faces", seeds=seeds, format="npy").content
    assert (images == np.load(io.BytesIO(wanted))).all()
    with page.expect_download() as kept:
        page.click("#download-grid")
    with open(kept.value.path(), "rb") as file:
        assert Image.open(io.BytesIO(file.read())).width >= 8 * 16


@pytest.mark.parametrize("seed", ["x", "-1", str(2**64)])
def test_a_seed_that_is_none_is_explained(page: Page, site: ServerProcess, seed: str) -> None:
    page.goto(site.url)
    loaded(page)
    page.fill("#seed", seed)
    page.press("#seed", "Tab")
    expect(page.locator("#message")).to_contain_text("A seed is a whole number in 0 ..")


def test_the_page_draws_the_latents_of_the_server(page: Page, site: ServerProcess) -> None:
    page.goto(site.url)
    seeds = [0, 1, 42, 2**53 + 1, 2**64 - 1]
    found = page.evaluate(
        """async (seeds) => {
            const { latent } = await import("./web/playground/latents.js");
            return seeds.map((seed) => latent(BigInt(seed), 7));
        }""",
        list(map(str, seeds)),
    )
    np.testing.assert_allclose(found, latents(seeds, 7), rtol=3e-7)


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
    expect(page.get_by_role("alert")).to_contain_text("holds no valid key")
    page.fill("#key", key)
    page.keyboard.press("Enter")
    loaded(page)
    expect(page.get_by_role("alert")).to_be_hidden()
    expect(page.locator("#metrics")).to_be_hidden()  # a link can't bring the key
    expect(page.locator("#truth div")).to_have_count(0)  # nor may this key see them
    tile(page, 3).click()
    expect(page.locator("#caption")).to_have_text("Seed 3, class class 0")
    page.click("#copy-curl")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert key not in copied
    assert page.evaluate("[localStorage.length, sessionStorage.length]") == [0, 0]
    assert key not in page.url
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
    expect(page.locator("#truth-device")).to_have_text("cpu")
    expect(page.locator("#truth-waiting")).to_have_text("0")
    digest = site.get("/v1/models/digits").json()["digest"]
    expect(page.locator("#truth-digest")).to_have_text(digest[:12])
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
    expect(page.get_by_role("alert")).to_have_text("No model is served yet.")
    expect(page.locator("#metrics")).to_be_hidden()


def test_the_quantiles_of_the_strip_are_prometheus_own(page: Page, site: ServerProcess) -> None:
    page.goto(site.url)
    text = "\n".join(
        f'saddlepoint_http_request_duration_seconds_bucket{{le="{bound}",route="/v1/generate"}} {n}'
        for bound, n in (("0.1", 10), ("0.2", 30), ("0.4", 40), ("+Inf", 40))
    )
    found = page.evaluate(
        """async (text) => {
            const { sampleOf, quantile } = await import("./web/playground/pulse.js");
            const [now, none] = [sampleOf(text), sampleOf("")];
            return [quantile(now, none, 0.5), quantile(now, none, 0.99), quantile(now, now, 0.5)];
        }""",
        text,
    )
    assert found == [pytest.approx(0.15), pytest.approx(0.392), None]


def test_pages_are_kept_and_may_load_nothing_else(site: ServerProcess) -> None:
    page = site.get("/").text
    named = set(re.findall(r'(?:src|href)="(web/[^"]+)"', page))
    folder = Path(__file__).parents[2] / "serving" / "web"
    scripts = {f"web/{path.relative_to(folder)}" for path in folder.glob("playground/**/*.js")}
    assert scripts <= named  # all are asked for at once, not one after the other
    for path in ("/", "/docs", *(f"/{name}" for name in sorted(named))):
        reply = site.get(path)
        assert reply.status_code == 200, path
        assert "default-src 'self'" in reply.headers["content-security-policy"]
        again = site.get(path, headers={"if-none-match": reply.headers["etag"]})
        assert again.status_code == 304
    assert site.get("/web/..%2f..%2fpyproject.toml").status_code == 404
    assert site.get("/web/index.html").status_code == 404
    assert json.loads(site.get("/openapi.json").text)["paths"].keys().isdisjoint({"/web/style.css"})
