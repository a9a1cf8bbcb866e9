"""The playground in Chromium: how long a wall takes, a slider, a scrub, and what jumps meanwhile.

    python benchmarks/serving/playground.py [--quick]

It serves an untrained generator of the digits' size with directions, as people meet it: with the
cache of images. Needs Chromium and Playwright. Figures:

    playground.wall_256         opening the page until 256 images are drawn, median of the openings
    playground.slider_p95       moving a slider until the large image shows it
    playground.scrub_p95        moving the path's slider until its frame is drawn
    playground.scrub_frames     frames a second while the path is scrubbed
    playground.layout_shift     Chromium's cumulative layout shift of an opening, 0 is none
"""

import shutil
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from _harness import figure, make_repository, parser, saddlepoint, scratch_folder
from playwright.sync_api import Browser, Page, sync_playwright

from models.bundle.bundle import write_bundle
from models.bundle.directions import DIRECTIONS, Directions, DirectionSet, GoldenSteps
from models.bundle.generator import CpuGenerator
from models.latents import latents
from models.repository import Repository

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
WIDE = {"width": 1600, "height": 1000}
STATE = "#model=digits&seed={seed}&tiles=s&image={seed}"
WATCH = """
window.shifted = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) shifted += entry.value;
}).observe({ type: "layout-shift", buffered: true });
"""
WALL = """
async () => {
  for (;;) {
    const shown = [...document.querySelectorAll("#images img")].slice(0, 256);
    if (shown.length === 256 && shown.every((image) => image.complete && image.naturalWidth)) {
      await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)));
      const box = document.getElementById("wall").getBoundingClientRect();
      const seen = shown.filter((image) => image.getBoundingClientRect().top < box.bottom);
      return [performance.now(), seen.length];
    }
    await new Promise((later) => setTimeout(later, 5));
  }
}
"""
DRAG = """
async (moves) => {
  performance.clearMeasures("picture");
  const slider = document.querySelector('#directions input[data-key="0"]');
  const large = document.getElementById("large");
  const times = [];
  for (let move = 0; move < moves; move += 1) {
    const units = (((move * 7) % 29) / 10 + 0.1).toFixed(1);
    const began = performance.now();
    slider.value = units;
    slider.dispatchEvent(new Event("input"));
    const has = () => large.src.includes(`d0=${Number(units)}`) && large.complete;
    while (!has()) await new Promise((go) => setTimeout(go, 0));
    await new Promise((drawn) => requestAnimationFrame(drawn));
    times.push(performance.now() - began);
  }
  return times;
}
"""
SCRUB = """
async (moves) => {
  const scrub = document.getElementById("scrub");
  const times = [];
  const began = performance.now();
  for (let move = 0; move < moves; move += 1) {
    const start = performance.now();
    scrub.value = String(move % (Number(scrub.max) + 1));
    scrub.dispatchEvent(new Event("input"));
    times.push(performance.now() - start);
    await new Promise((drawn) => requestAnimationFrame(drawn));
  }
  return [times, (moves * 1000) / (performance.now() - began)];
}
"""


def with_directions(repository: Repository, folder: Path) -> Repository:
    """The same model with two directions: the first axes of z."""
    bundle = repository.bundle("digits")
    manifest = bundle.manifest
    steps = np.eye(2, manifest.z_dim, dtype=np.float32)
    seeds, amounts = np.arange(2, dtype=np.uint64), np.eye(2, dtype=np.float32)
    images = CpuGenerator(bundle.model_path)(latents(seeds, manifest.z_dim) + amounts @ steps, None)
    found = Directions(
        sets={
            "z": DirectionSet(
                steps=steps,
                eigenvalues=np.ones(2, np.float32),
                names=np.array(["", ""]),
                evidence=np.zeros((2, 1), np.float32),
                pictures=np.zeros((2, 1, *images.shape[1:]), np.uint8),
            )
        },
        concepts=("area",),
        amounts=np.zeros(1, np.float32),
        golden=GoldenSteps(seeds=seeds, labels=None, amounts=amounts, images=images),
    )
    files = {name: (bundle.path / name).read_bytes() for name in manifest.files}
    made = write_bundle(folder / "moved", manifest, files | {DIRECTIONS: found.to_bytes()})
    repository.publish("digits", made)
    return repository


def opened(browser: Browser, url: str, seed: int) -> tuple[Page, float, int, float]:
    """A fresh browser's page with its wall: milliseconds, images in view, layout shift."""
    page = browser.new_context(viewport=WIDE).new_page()  # type: ignore[arg-type]
    page.add_init_script(WATCH)
    page.goto(url + "/" + STATE.format(seed=seed), wait_until="commit")
    ms, seen = page.evaluate(WALL)
    page.wait_for_function("() => document.getElementById('truth-device')")
    return page, ms, seen, page.evaluate("shifted")


def p95(values: list[float]) -> float:
    """The 95th percentile."""
    return float(np.percentile(values, 95))


def main() -> None:
    """Measures and prints."""
    options = parser(__doc__ or "").parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("chromium is missing: apt-get install chromium")
    openings, moves = (3, 60) if options.quick else (9, 300)
    with scratch_folder() as folder, sync_playwright() as playwright:
        repository = with_directions(make_repository(folder, "digits"), folder)
        flags = ("--cache-bytes", str(64 << 20))
        with saddlepoint(repository, folder, *flags) as server:
            browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            walls: list[float] = []
            shifts: list[float] = []
            page: Any = None
            for number in range(openings):  # each of seeds that nothing has made yet
                if page is not None:
                    page.context.close()
                page, ms, seen, shifted = opened(browser, server.url, 1000 * number)
                walls.append(ms)
                shifts.append(shifted)
            print(f"{seen} of the 256 images are in view at {WIDE['width']}x{WIDE['height']}")
            figure("playground.wall_256", statistics.median(walls), "ms")
            figure("playground.layout_shift", max(shifts), "1")
            times = page.evaluate(DRAG, moves)
            figure("playground.slider_p50", statistics.median(times), "ms")
            figure("playground.slider_p95", p95(times), "ms")
            page.evaluate("location.hash += '&path=1,2,3,4'")
            page.wait_for_function("() => document.getElementById('scrub').max === '72'")
            page.wait_for_selector(".player[aria-busy=false]")
            drawn, rate = page.evaluate(SCRUB, moves)
            figure("playground.scrub_p95", p95(drawn), "ms")
            figure("playground.scrub_frames", rate, "1/s")
            browser.close()


if __name__ == "__main__":
    main()
