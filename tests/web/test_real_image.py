"""The playground's panel for a real image, as a person uses it in Chromium."""

import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from models.repository import Repository
from tests.conftest import ServerProcess, server_process
from tests.real_images import FULL

Shots = Callable[[Page, str], None]


@pytest.fixture(scope="module")
def real_site(
    make_bundle: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """bare: without an encoder; digits: with one."""
    root = tmp_path_factory.mktemp("real-web")
    repository = Repository(root)
    repository.publish("bare", make_bundle())
    made = make_bundle(num_classes=10, size=16, directions=True, encoder=FULL, scale=10)
    repository.publish("digits", made)
    with server_process(root, tmp_path_factory.mktemp("log")) as running:
        yield running


def source(page: Page, id: str) -> np.ndarray[Any, Any]:
    """The pixels that an image of the page shows, [H, W, 4]."""
    code = f"""async () => {{
        const image = document.getElementById("{id}"); await image.decode();
        const c = new OffscreenCanvas(image.naturalWidth, image.naturalHeight).getContext("2d");
        c.drawImage(image, 0, 0);
        return [...c.getImageData(0, 0, image.naturalWidth, image.naturalHeight).data];
    }}"""
    return np.array(page.evaluate(code), np.uint8).reshape(16, 16, 4)


def test_an_image_is_seen_edited_and_filled(
    page: Page, real_site: ServerProcess, shots: Shots
) -> None:
    page.goto(real_site.url)
    expect(page.locator("#model option")).to_have_count(2)
    page.select_option("#model", "bare")
    page.locator("#real > summary").click()
    expect(page.locator("#real-none")).to_be_visible()
    page.select_option("#model", "digits")
    expect(page.locator("#real-body")).to_be_visible()
    expect(page.locator("#real-sliders input")).to_have_count(3)
    data = real_site.generate(model="digits", seeds=[4], labels=6).content
    page.set_input_files("#real-file", {"name": "x.png", "mimeType": "image/png", "buffer": data})
    told = page.locator("#real-map-told")
    expect(told).to_contain_text("of 99 usual images")
    expect(page.locator("#real-made-told")).to_contain_text("class class 6")
    original = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    assert np.array_equal(source(page, "real-edited"), original)
    slider = page.locator('#real-sliders input[data-key="0"]')
    with page.expect_response("**/v1/edit"):
        slider.fill("2")
    page.wait_for_function("document.getElementById('real-edited').src.startsWith('blob:')")
    assert not np.array_equal(source(page, "real-edited"), original)
    page.locator("#real-mask").scroll_into_view_if_needed()
    box = page.locator("#real-mask").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 30, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + 90, box["y"] + 90, steps=12)
    page.mouse.up()
    with page.expect_response("**/v1/inpaint") as asked:
        page.click("#real-go")
    assert asked.value.status == 200
    expect(page.locator("#real-filled figure")).to_have_count(5)
    expect(page.locator("#real-note")).to_contain_text("plausible, not true")
    shots(page, "real-image")
    page.click("#real-clear")
    page.click("#real-go")
    expect(page.locator("#real-message")).to_contain_text("nothing to be filled")
