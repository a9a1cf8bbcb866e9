"""The playground's sliders of directions, as a person uses them in Chromium."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
from playwright.sync_api import Page, expect

from tests.conftest import ServerProcess
from tests.web.conftest import loaded, sources

Shots = Callable[[Page, str], None]


def slide(page: Page, key: str, units: str) -> None:
    """Moves a slider and lets it go."""
    slider = page.locator(f'#directions input[data-key="{key}"]')
    slider.fill(units)
    slider.dispatch_event("change")


def test_sliders_move_all_images_and_stand_in_the_url(
    page: Page, site: ServerProcess, shots: Shots
) -> None:
    page.goto(site.url)
    loaded(page)
    still = sources(page)
    expect(page.locator("#directions input")).to_have_count(5)
    row = page.locator("#directions .body > label").first
    expect(row).to_contain_text("0 slant")
    expect(row).to_contain_text("33 % of the change; follows area +0.70, slant +0.70")
    page.locator("#images button").nth(5).click()
    slide(page, "0", "1.5")
    slide(page, "class:1", "-2")
    loaded(page)
    moved = sources(page)
    assert not set(moved) & set(still)
    asked = {"slant": 1.5, "class:1": -2}
    wanted = site.generate(model="digits", seeds=[5], labels=0, directions=asked).content
    assert httpx.get(moved[5]).content == wanted
    expect(page.locator("#caption")).to_have_text(
        "Seed 5, class class 0, slant +1.5, direction class:1 \N{MINUS SIGN}2.0"
    )
    assert page.url.endswith("#model=digits&seed=0&label=0&d0=1.5&d.class%3A1=-2&image=5")
    shots(page, "directions")
    page.emulate_media(color_scheme="dark")
    for width in (820, 390):
        page.set_viewport_size({"width": width, "height": 844})
        shots(page, f"directions-{width}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    other = page.context.new_page()
    other.goto(page.url)
    loaded(other)
    assert sources(other) == moved
    expect(other.locator('#directions input[data-key="0"]')).to_have_value("1.5")
    page.click("#reset")
    loaded(page)
    assert sources(page) == still
    expect(page.locator('#directions input[data-key="0"]')).to_have_value("0")


def test_a_slider_is_moved_by_keys(page: Page, site: ServerProcess) -> None:
    page.goto(site.url)
    loaded(page)
    page.locator('#directions input[data-key="1"]').focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#directions output").nth(1)).to_have_text("0.3")
    page.wait_for_function("() => location.hash.includes('d1=0.3')")


def test_the_copied_program_makes_the_image_again(
    page: Page, site: ServerProcess, tmp_path: Path
) -> None:
    page.goto(f"{site.url}/#model=digits&seed=9007199254740993&label=7&psi=0.5&d.slant=1&d2=-1.2")
    loaded(page)
    page.locator("#images button").first.click()
    page.click("#copy-python")
    program = page.evaluate("navigator.clipboard.readText()")
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, program + ran.stderr
    wanted = site.generate(
        model="digits",
        seeds=["9007199254740993"],
        labels=7,
        truncation=0.5,
        directions={"slant": 1, "2": -1.2},
    ).content
    assert (tmp_path / "image.png").read_bytes() == wanted


def test_a_model_without_directions_has_no_sliders(page: Page, site: ServerProcess) -> None:
    page.goto(f"{site.url}/#model=digits&seed=0&d0=1")
    loaded(page)
    page.select_option("#model", "faces")
    expect(page.locator("#directions")).to_be_hidden()
    loaded(page)
    assert all("d0=" not in source for source in sources(page))
    page.select_option("#model", "digits")
    expect(page.locator('#directions input[data-key="0"]')).to_have_value("0")
