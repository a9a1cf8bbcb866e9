"""The playground's panels: units, styles, versions, path, lattice, arithmetic."""

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page, expect

from models.latents import latents, walk
from tests.conftest import ServerProcess
from tests.support import HTTP
from tests.web.conftest import loaded, sources

Shots = Callable[[Page, str], None]


def opened(page: Page, panel: str) -> None:
    page.locator(f"#{panel} > summary").click()


def pixels(page: Page, selector: str) -> Any:
    """What an image or a canvas shows, [H, W, 4]."""
    found = page.locator(selector).evaluate(
        """(shown) => {
            const canvas = document.createElement("canvas");
            canvas.width = shown.naturalWidth || shown.width;
            canvas.height = shown.naturalHeight || shown.height;
            const context = canvas.getContext("2d");
            context.drawImage(shown, 0, 0);
            const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
            return [canvas.height, canvas.width, ...data];
        }"""
    )
    return np.array(found[2:], np.uint8).reshape(found[0], found[1], 4)


def test_units_are_switched_off(page: Page, site: ServerProcess) -> None:
    page.goto(f"{site.url}/#model=parts&seed=0&label=1")
    loaded(page)
    opened(page, "units")
    expect(page.locator("#units")).to_contain_text("not more than chance")
    expect(page.locator("#units")).to_contain_text("distance falls by 2.50, 1.50 .. 3.50")
    page.get_by_label("1 (8x8, agrees 0.25)").check()
    page.fill("#units-off", "1, 3")
    page.press("#units-off", "Enter")
    loaded(page)
    page.wait_for_function("() => location.hash.includes('units_off=1,3')")
    wanted = site.generate(model="parts", seeds=[5], labels=1, units_off=[3, 1]).content
    assert HTTP.get(sources(page)[5]).content == wanted
    page.fill("#units-off", "4")
    page.press("#units-off", "Enter")
    expect(page.get_by_role("alert")).to_have_text("4 is no unit; allowed are 0 .. 3.")
    page.get_by_role("button", name="Switch all on").click()
    page.wait_for_function("() => !location.hash.includes('units_off')")


def test_styles_are_mixed(page: Page, site: ServerProcess) -> None:
    page.goto(f"{site.url}/#model=styles&seed=0&image=3")
    loaded(page)
    opened(page, "styles")
    page.fill("#style-from", "9")
    page.press("#style-from", "Enter")  # without a choice the finer half
    page.get_by_label("Style 0 (4 pixels) of the other seed").check()
    psi = page.get_by_label("Truncation of style 1 (4 pixels)")
    psi.fill("0.5")
    psi.dispatch_event("change")
    styles = {"from": 9, "layers": [0, 2, 3], "truncation": [1, 0.5, 1, 1]}
    wanted = site.generate(model="styles", seeds=[3], styles=styles).content
    page.click("#copy-url")
    assert HTTP.get(page.evaluate("navigator.clipboard.readText()")).content == wanted
    cell = page.get_by_alt_text("Seed 1 with styles 0 2 3 of seed 6")
    mixed = {**styles, "from": 6}
    wanted = site.generate(model="styles", seeds=[1], styles=mixed).content
    assert (cell.get_attribute("src") or "").startswith("v1/models/")  # below any path
    assert HTTP.get(cell.evaluate("image => image.src")).content == wanted
    page.get_by_role("button", name="Reset styles").click()
    page.wait_for_function("() => location.hash === '#model=styles&seed=0&image=3'")


def test_two_versions_differ_by_what_their_pixels_do(page: Page, site: ServerProcess) -> None:
    page.goto(f"{site.url}/#model=parts&seed=4&label=2&against=1")
    expect(page.locator(".pairs canvas")).to_have_count(6)
    body = {"model": "parts", "seeds": [4], "labels": 2, "format": "npy"}
    two, one = (
        np.load(io.BytesIO(site.generate(**body, version=version).content)).astype(int)
        for version in (2, 1)
    )
    apart = abs(two - one)[0, ..., 0]
    assert (pixels(page, ".pairs canvas >> nth=0")[..., 0] == apart).all()
    expect(page.locator(".pairs .wide").first).to_have_text(
        f"Seed 4: mean {apart.mean():.1f}, most {apart.max()}"
    )
    page.select_option("#against", "")
    expect(page.locator(".pairs canvas")).to_have_count(0)


def test_a_path_is_scrubbed_without_a_request(page: Page, site: ServerProcess) -> None:
    page.goto(f"{site.url}/#model=digits&seed=0&label=2&path=3,8,9007199254740993")
    expect(page.locator("#scrub")).to_have_attribute("max", "48")
    expect(page.locator(".player")).to_have_attribute("aria-busy", "false")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    z = walk(latents([8, 9007199254740993], 6), 25)
    body = {"model": "digits", "latents": z.tolist(), "labels": 2, "format": "npy"}
    frames = np.load(io.BytesIO(site.generate(**body).content))
    for frame in (24, 30, 48):
        page.locator("#scrub").fill(str(frame))
        shown = pixels(page, "#path-frame")[..., 0]
        assert (shown == frames[frame - 24, ..., 0]).all()
    assert not [url for url in asked if "interpolate" in url or "images" in url]
    page.check("#loop")
    expect(page.locator("#scrub")).to_have_attribute("max", "72")
    whole = page.expect_request(lambda request: '"loop"' in (request.post_data or ""))
    with whole as sent, page.expect_download():
        page.click("#walk")
    request = json.loads(sent.value.post_data or "")
    assert request["loop"] is True
    assert request["frames"] == 72
    page.get_by_role("button", name="Take seed 8 off the path").click()
    page.wait_for_function("() => location.hash.includes('path=3,9007199254740993')")


def test_a_path_is_played(page: Page, site: ServerProcess) -> None:
    page.goto(f"{site.url}/#model=digits&seed=0&label=2&path=3,8")
    expect(page.locator("#scrub")).to_have_attribute("max", "24")
    page.click("#play")
    expect(page.locator("#scrub")).to_have_value("24")
    expect(page.locator("#play")).to_have_text("Play")


def test_a_lattice_has_its_seeds_in_its_corners(page: Page, site: ServerProcess) -> None:
    page.goto(f"{site.url}/#model=faces&seed=0&psi=0.5")
    loaded(page)
    opened(page, "lattice")
    page.click("#take-corners")
    picture = page.locator("#lattice-image")
    expect(picture).to_have_attribute("alt", "7 by 7 images between the seeds 0, 1, 2, 3")
    page.wait_for_function("() => document.getElementById('lattice-image').naturalWidth === 7 * 16")
    whole = pixels(page, "#lattice-image")[..., :3].astype(int)
    body = {"model": "faces", "seeds": [0, 1, 2, 3], "truncation": 0.5, "format": "npy"}
    images = np.load(io.BytesIO(site.generate(**body).content)).astype(int)
    corners = (whole[:16, :16], whole[:16, -16:], whole[-16:, :16], whole[-16:, -16:])
    for corner, image in zip(corners, images, strict=True):
        assert abs(corner - image).max() <= 1


def test_a_sum_of_latents_is_shown(page: Page, site: ServerProcess) -> None:
    page.goto(f"{site.url}/#model=faces&seed=0")
    loaded(page)
    opened(page, "arithmetic")
    for name, seed in zip("ABC", (1, 2, 3), strict=True):
        page.fill(f"#term-{name}", str(seed))
        page.press(f"#term-{name}", "Enter")
    page.wait_for_function("() => document.getElementById('sum')?.naturalWidth === 16")
    a, b, c = latents([1, 2, 3], 6).astype(float)
    z = a - b + c
    z *= np.linalg.norm(c) / np.linalg.norm(z)
    body = {"model": "faces", "latents": [z.tolist()], "format": "png"}
    wanted = np.asarray(Image.open(io.BytesIO(site.generate(**body).content))).astype(int)
    assert abs(pixels(page, "#sum")[..., :3].astype(int) - wanted).max() <= 1
    assert "terms=1,2,3" in page.url


EVERYTHING = {
    "parts": "model=parts&seed=0&label=1&units_off=1&image=2&stars=1,2&path=1,2&loop=1"
    "&corners=1,2,3,4&terms=1,2,3&against=1",
    "styles": "model=styles&seed=0&styles.from=9&styles.layers=0&image=2",
    "digits": "model=digits&seed=0&label=0&d0=1&image=2",
}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("model", EVERYTHING)
def test_nobody_is_shut_out(
    page: Page, site: ServerProcess, shots: Shots, theme: Any, model: str
) -> None:
    page.emulate_media(color_scheme=theme)
    page.goto(f"{site.url}/#{EVERYTHING[model]}")
    loaded(page)
    page.evaluate(
        """() => {
            for (const panel of document.querySelectorAll("#panels > details")) panel.open = true;
        }"""
    )
    expect(page.locator("#caption")).to_contain_text("Seed 2")
    if model == "parts":
        expect(page.locator(".player")).to_have_attribute("aria-busy", "false")
        expect(page.locator(".pairs canvas")).to_have_count(6)
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    for width in (360, 900, 1600):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
        shots(page, f"{model}-{theme}-{width}")


def test_nothing_jumps_while_it_loads(page: Page, site: ServerProcess) -> None:
    """Chromium's own measure: how much of the page moved without the user's doing."""
    page.add_init_script(
        """window.moved = 0;
           new PerformanceObserver((list) => {
             for (const entry of list.getEntries()) if (!entry.hadRecentInput) moved += entry.value;
           }).observe({ type: "layout-shift", buffered: true });"""
    )
    page.goto(f"{site.url}/#model=digits&seed=0&label=0&image=2")
    loaded(page)
    expect(page.locator("#truth-device")).to_have_text("cpu")
    expect(page.locator("#caption")).to_contain_text("Seed 2")
    before = page.evaluate("moved")
    page.locator("#images button").nth(7).click()
    expect(page.locator("#caption")).to_contain_text("Seed 7")
    page.locator('#directions input[data-key="0"]').fill("1")
    expect(page.locator("#caption")).to_contain_text("slant +1.0")
    assert page.evaluate("moved") - before < 0.01
    assert before < 0.02
