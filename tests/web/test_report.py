"""The report of a training, in Chromium: alone with its file, at every width, in both themes."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from tests.training.report.planted import PLANTED, course, plant, results
from training.report.verdict import STATES
from training.report.writer import NAME, write
from training.runs.catalogue import Run

Shots = Callable[[Page, str], None]
WIDTHS = (360, 820, 1600)
SERIOUS = ("serious", "critical")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run with everything that a page shows."""
    folder = plant(
        tmp_path_factory.mktemp("runs") / "00000-digits",
        course(),
        watchdog={"alarms": [{"failure": "collapse", "cur_nimg": 9000, "says": "at 9 kimg"}]},
    )
    results(folder)
    Image.new("L", (128, 64), 90).save(folder / "samples" / "neighbours.png")
    return write([Run(folder)], folder / NAME)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run in every state, in one page."""
    root = tmp_path_factory.mktemp("planted")
    runs = [
        Run(plant(root / f"{index:05}-{state.split()[0]}", lines, **options))
        for index, (state, (lines, options)) in enumerate(PLANTED.items())
    ]
    return write(runs, root / NAME)


@pytest.fixture
def page(browser: Browser) -> Page:  # type: ignore[misc]
    """A page that may say nothing on the console, and load nothing but its file."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    opened = context.new_page()
    wrong: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            wrong.append(message.text)

    opened.on("console", note)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on(
        "request",
        lambda request: (
            wrong.append(request.url) if not request.url.startswith(("file:", "data:")) else None
        ),
    )
    yield opened  # type: ignore[misc]
    context.close()
    assert wrong == []


def drawn(page: Page, path: Path) -> None:
    """Opens a report, and waits until every chart that can be seen has its canvas."""
    page.goto(path.as_uri())
    page.wait_for_function(
        """() => [...document.querySelectorAll(".chart")].every(
             (box) => !box.clientWidth || box.querySelector("canvas"))"""
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_every_width_in_both_themes(
    page: Page, report: Path, shots: Shots, width: int, theme: str
) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    drawn(page, report)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    sentence = page.locator(".verdict .sentence")
    expect(sentence).to_be_in_viewport()
    expect(sentence).to_contain_text("Still improving: the Frechet distance fell by 53%, from")
    shots(page, f"report-{width}-{theme}")
    if width != WIDTHS[1]:
        found = Axe().run(page).response["violations"]
        assert [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in SERIOUS] == []


def test_the_theme_can_be_chosen(page: Page, report: Path) -> None:
    page.emulate_media(color_scheme="light")
    drawn(page, report)
    ground = "getComputedStyle(document.body).backgroundColor"
    line = "document.querySelector('.chart canvas').toDataURL()"
    before = page.evaluate(ground), page.evaluate(line)
    page.get_by_label("dark").check()
    page.wait_for_function(f"{ground} !== '{before[0]}'")
    assert page.evaluate(line) != before[1]  # charts follow
    page.get_by_label("light", exact=True).check()
    page.wait_for_function(f"{ground} === '{before[0]}'")


def test_the_slider_shows_the_samples_over_time(page: Page, report: Path) -> None:
    drawn(page, report)
    picture, slider = page.locator("#frame0"), page.get_by_label("Thousands of images shown")
    last = picture.get_attribute("src")
    expect(page.locator("#kimg0")).to_have_text("20")
    slider.focus()
    page.keyboard.press("Home")
    expect(page.locator("#kimg0")).to_have_text("0")
    assert picture.get_attribute("src") != last
    assert picture.evaluate("(image) => image.decode().then(() => image.naturalWidth)") == 64
    page.keyboard.press("End")
    assert picture.get_attribute("src") == last


def test_a_chart_tells_the_values_under_the_pointer(page: Page, report: Path) -> None:
    drawn(page, report)
    chart = page.locator(".chart", has_text="frechet_distance").first
    chart.locator(".u-over").hover()
    expect(chart.locator(".place")).to_have_text(re.compile(r"at [0-9.]+ kimg"))
    expect(chart.locator("output").first).to_have_text(re.compile(r"[0-9.]+"))


def test_the_verdicts_of_planted_runs_are_read(page: Page, planted: Path, shots: Shots) -> None:
    drawn(page, planted)
    rows = page.locator("section", has=page.get_by_role("heading", name="Verdicts")).locator(
        "tbody tr"
    )
    expect(rows).to_have_count(len(PLANTED))
    for row, state in zip(rows.all(), PLANTED, strict=True):
        expect(row).to_contain_text(STATES[state.split()[0]])
    second = page.locator("details.run").nth(1)
    expect(second.locator("canvas").first).to_be_hidden()
    second.locator("summary").first.click()
    expect(second.locator("canvas").first).to_be_visible()  # drawn once it can be seen
    shots(page, "report-many")
    found = Axe().run(page).response["violations"]
    assert [v["id"] for v in found if v["impact"] in SERIOUS] == []


def test_on_paper_it_is_light_and_whole(page: Page, report: Path) -> None:
    page.emulate_media(color_scheme="dark")
    drawn(page, report)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(251, 251, 250)"
    expect(page.locator(".themes")).to_be_hidden()
    expect(page.locator(".chart canvas").first).to_be_visible()
    pdf = page.pdf(format="A4")
    assert pdf.startswith(b"%PDF")
