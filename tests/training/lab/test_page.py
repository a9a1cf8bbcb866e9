"""The lab in Chromium: plays, stops, refuses in words, comes back; the link is the game."""

import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page, expect

from tests.training.lab.conftest import SMALL, RunningLab, playing, start, until
from training.lab.lessons import LESSONS

# A machine that does other work makes the first frame of a game late.
pytestmark = pytest.mark.timeout(900)

NewPage = Callable[..., Page]
PICTURE = "lab.views[0].board.canvas.toDataURL()"
ROUND = "lab.views[0].frame.head.round"
SERIOUS = ("serious", "critical")


def test_a_step_changes_the_picture_and_pause_stops_it(running: RunningLab, new_page: NewPage):
    page = new_page(f"{running.url}?{SMALL}", reduced_motion="reduce")
    until(page, "!!window.lab?.views[0]?.frame")
    before = page.evaluate(PICTURE)
    page.get_by_role("button", name="Step", exact=True).click()
    until(page, f"{ROUND} === 1")
    until(page, f"{PICTURE} !== {before!r}")
    page.get_by_role("heading", name="Lab", exact=False).first.click()  # else Space is the button's
    page.keyboard.press("Space")
    until(page, f"{ROUND} > 20")
    page.get_by_role("button", name="Pause").click()
    until(page, "lab.views[0].frame.head.playing === false")
    stood = page.evaluate(f"[{ROUND}, lab.views[0].frame.head.sequence]")
    until(page, f"lab.views[0].frame.head.sequence > {stood[1]} + 3")
    assert page.evaluate(ROUND) == stood[0]
    page.get_by_role("button", name="Step D").click()
    until(page, f"{ROUND} === {stood[0]} + 1")
    expect(page.get_by_label("Back to round")).to_have_attribute("max", str(stood[0] + 1))
    page.get_by_label("Back to round").focus()
    page.keyboard.press("Home")
    until(page, f"{ROUND} === 0")
    page.get_by_role("button", name="Reset").click()
    page.get_by_role("checkbox", name="eigenvalues").check()
    page.get_by_role("button", name="Step", exact=True).click()
    expect(page.locator(".plane figcaption")).to_contain_text("all eigenvalues")


def test_the_link_is_the_game(running: RunningLab, new_page: NewPage):
    page = new_page(f"{running.url}?{SMALL}&objective=hinge")
    page.get_by_label("Points", exact=True).select_option("two-moons")
    page.get_by_label("Seed").fill("3")
    page.get_by_label("Seed").press("Enter")
    until(page, "location.search.includes('seed=3')")
    until(page, "lab.views[0].game?.texts.seed === '3'")
    first = playing(page, 500)
    other = new_page(page.url)
    expect(other.get_by_label("Points", exact=True)).to_have_value("two-moons")
    assert playing(other, 500) == first != ""


def test_two_games_differ_in_what_differs(running: RunningLab, new_page: NewPage):
    page = new_page(f"{running.url}?{SMALL}&compare=1")
    playing(page, 500)
    playing(page, 500, view=1)
    digests = page.evaluate("lab.views.map((view) => view.frame.head.digest)")
    assert digests[0] == digests[1] != ""
    page.get_by_label("only B").check()
    page.get_by_label("Seed").fill("4")
    page.get_by_label("Seed").press("Enter")
    until(page, "location.search.includes('b.seed=4')")
    expect(page.locator("#differs")).to_have_text("B differs in Seed: 4")
    until(
        page, f"lab.views[1].frame.head.digest && lab.views[1].frame.head.digest !== '{digests[1]}'"
    )
    assert page.evaluate("lab.views[0].frame.head.digest") == digests[0]


def test_what_can_not_be_is_refused_beside_its_field(running: RunningLab, new_page: NewPage):
    page = new_page(f"{running.url}?{SMALL}")
    playing(page, 5)
    page.get_by_label("Packing").fill("3")
    page.get_by_label("Packing").press("Enter")
    field = page.locator(".field", has=page.get_by_label("Packing"))
    expect(field.get_by_role("alert")).to_contain_text("packing is 3, allowed: a divisor")
    expect(page.get_by_label("Packing")).to_have_attribute("aria-invalid", "true")
    now = page.evaluate(ROUND)
    until(page, f"{ROUND} > {now}")  # it goes on
    assert "packing" not in page.url
    page.get_by_label("r1", exact=True).uncheck()
    until(page, "lab.views[0].game.texts.regularizers === 'r2=0.1'")
    expect(field.get_by_role("alert")).to_be_hidden()
    wrong = new_page(f"{running.url}?{SMALL}&seed=-1")
    expect(wrong.get_by_text("seed is -1, allowed: 0 .. 2.14748e+09 in the lab")).to_be_visible()
    wrong.get_by_label("Seed").fill("1")
    wrong.get_by_label("Seed").press("Enter")
    until(wrong, "!!lab.views[0].frame")


def test_points_are_drawn_or_dropped_and_everything_can_be_kept(
    running: RunningLab, new_page: NewPage, tmp_path: Path
):
    page = new_page(f"{running.url}?{SMALL}")
    until(page, "!!window.lab?.views[0]?.frame")
    page.get_by_label("Points", exact=True).select_option("drawn")
    pad = page.locator("#pad-canvas")
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 150, steps=10)
    page.mouse.up()
    page.get_by_role("button", name="Use these points").click()
    until(page, "lab.views[0].game.texts.data === 'drawn'")
    assert page.evaluate("lab.views[0].game.real.length") >= 30
    csv = tmp_path / "mine.csv"
    csv.write_text("x,y\n" + "".join(f"{i},{i % 5}\n" for i in range(25)))
    page.get_by_label("CSV file").set_input_files(csv)
    until(page, "lab.views[0].game.real.length === 25")
    playing(page, 3)
    page.get_by_role("button", name="Command line").click()
    expect(page.locator("#command-text")).to_contain_text("--data.path points.csv")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save points.csv").click()
    assert len(Path(saved.value.path()).read_text().splitlines()) == 25
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save PNG").click()
    with Image.open(saved.value.path()) as picture:
        assert picture.size[0] > 300
    page.get_by_role("button", name="Record WebP").click()
    until(page, "lab.film.stills.length > 3")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save the recording").click()
    film = Image.open(BytesIO(Path(saved.value.path()).read_bytes()))
    assert film.format == "WEBP"
    assert film.n_frames > 3  # type: ignore[attr-defined]
    assert film.convert("RGB").getextrema() != ((0, 0),) * 3


def test_a_dropped_connection_resumes_and_a_killed_lab_comes_back(new_page: NewPage):
    with start("--games", "1") as lab:
        first = new_page(lab.url)
        until(first, "!!window.lab?.views[0]?.frame")
        page = new_page(f"{lab.url}?{SMALL}")
        expect(page.get_by_role("alert").first).to_contain_text("games is 1, allowed: 1 at a time")
        first.close()  # its game ends with it
        begun = "!!lab.views[0].frame || (lab.views[0].state === 'refused' && (lab.begin(), false))"
        until(page, begun)
        playing(page, 30)
        page.get_by_role("button", name="Pause").click()
        until(page, "lab.views[0].frame.head.playing === false")
        stood, key = page.evaluate(f"[{ROUND}, lab.views[0].connection.key]")
        page.evaluate(
            "(lab.views[0].frame = undefined, lab.views[0].connection.socket.close(3000))"
        )
        until(page, "!!lab.views[0].frame")
        assert page.evaluate(f"[{ROUND}, lab.views[0].connection.key]") == [stood, key]
        lab.process.kill()
        lab.process.wait()
        expect(page.locator("#message")).to_contain_text("The connection is lost")
    with start(port=int(lab.url.split(":")[2].strip("/"))):
        expect(page.locator("#message")).to_contain_text("started again")
        until(page, f"!!lab.views[0].frame && {ROUND} === 0")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nobody_is_shut_out_at_any_width(
    running: RunningLab, new_page: NewPage, shots: Callable[[Page, str], None], theme: str
):
    page = new_page(f"{running.url}?{SMALL}&compare=1&b.seed=1", color_scheme=theme)
    playing(page, 3)
    expect(page.locator("#fate-say")).to_contain_text("Predicted: radius 1.0050")
    expect(page.locator("#lessons li")).to_have_count(len(LESSONS))
    for width in (360, 820, 1600):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        shots(page, f"lab-{width}-{theme}")
    page.evaluate("document.querySelectorAll('#form details').forEach((box) => (box.open = true))")
    found = Axe().run(page).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in SERIOUS] == []


def test_a_lesson_is_a_link(running: RunningLab, new_page: NewPage):
    page = new_page(running.url)
    page.get_by_role("link", name="R1 damps").click()
    expect(page.locator("#lesson")).to_contain_text("B adds R1")
    until(page, "lab.views.length === 2 && lab.views.every((view) => view.game)")
    texts = page.evaluate("lab.views.map((view) => view.game.texts)")
    assert {n for n in texts[0] if texts[0][n] != texts[1][n]} == {"regularizers"}
    assert re.search(r"b\.regularizers=r1", page.url)
    expect(page.get_by_label("Penalties", exact=True)).to_have_value("r1=0.3")
    page.get_by_label("Rounds", exact=True).fill("300")
    page.get_by_label("Rounds", exact=True).press("Enter")
    until(page, "location.search.includes('fate.rounds=300')")
    other = new_page(page.url)
    expect(other.get_by_label("Rounds", exact=True)).to_have_value("300")
    expect(other.get_by_label("Penalties", exact=True)).to_have_value("r1=0.3")
