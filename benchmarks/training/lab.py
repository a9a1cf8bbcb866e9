"""Speed of the lab with its page open in Chromium: rounds, frames, pause, memory.

Networks of two layers of 128, batch 128, relativistic pairs with R1 and R2, as the page begins. A
frame is counted from the moment that the page asks for it to the moment that it is there; drawing
is counted apart. Pause is counted from the click to the first frame that says so, and the round
that is seen then must be the last. Memory is that of the game's processes, at the start and at the
end. Two cores, and nothing else running.

Run: python benchmarks/training/lab.py [--quick] [--seconds 60]

`--film FILE` measures nothing, and records the lesson of R1 as README.md shows it.
"""

import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from _rounds import figure, parser
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from training.lab.lessons import LESSONS

ROOT = Path(__file__).parents[2]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
TIMES = "[lab.views[0].times.draw, lab.views[0].times.frame]"
HEAD = "lab.views[0].frame.head"
MAX_START_S = 120
FILM_SPEED, FILM_EVERY, FILM_WIDTH = 6, 3, 512  # 100 rounds a second; every third still


def p95(values: list[float]) -> float:
    return sorted(values)[int(0.95 * len(values))]


def wait(page: Page, expression: str) -> None:
    end = time.monotonic() + MAX_START_S
    while not page.evaluate(expression):
        if time.monotonic() > end:
            raise SystemExit(f"{expression} is false after {MAX_START_S} s")
        page.wait_for_timeout(10)


def memory_mib(pid: int) -> float:
    """Memory of a process and all below it that is no file's."""
    text = Path(f"/proc/{pid}/status").read_text()
    (line,) = [each for each in text.splitlines() if each.startswith("RssAnon")]
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(line.split()[1]) / 1024 + sum(memory_mib(int(child)) for child in children)


def measure(page: Page, pid: int, seconds: float) -> None:
    wait(page, "!!window.lab?.views[0]?.frame")
    page.click("#play")
    wait(page, f"{HEAD}.round > 50")
    before = memory_mib(pid)
    start, first = time.monotonic(), page.evaluate(f"{HEAD}.round")
    page.wait_for_timeout(1000 * seconds)
    num = page.evaluate(f"{HEAD}.round") - first
    figure("rounds", num / (time.monotonic() - start), "1/s")
    draw, frame = page.evaluate(TIMES)
    figure("draw_median", statistics.median(draw), "ms")
    figure("draw_p95", p95(draw), "ms")
    figure("frame_median", statistics.median(frame), "ms")
    figure("frame_p95", p95(frame), "ms")
    figure("memory_growth", memory_mib(pid) - before, "MiB")
    figure("memory", memory_mib(pid), "MiB")
    pauses = []
    for _ in range(10):
        pauses.append(page.evaluate(PAUSE))
        page.click("#play")
        wait(page, f"{HEAD}.playing")
    figure("pause_median", statistics.median(pauses), "ms")
    figure("pause_most", max(pauses), "ms")


def film(page: Page, url: str, path: Path) -> None:
    """Records twelve seconds at a hundred rounds a second, and makes the file small."""
    (lesson,) = (each for each in LESSONS if each.name == "damping")
    page.goto(f"{url}?{lesson.query}")
    wait(page, "!!window.lab?.views.every((view) => view.frame)")
    page.evaluate(
        f"""() => {{
            const speed = document.getElementById("speed");
            speed.value = {FILM_SPEED};
            speed.dispatchEvent(new Event("input"));
            document.getElementById("webp").click();
            document.getElementById("play").click();
        }}"""
    )
    with page.expect_download(timeout=1000 * MAX_START_S) as saved:
        pass
    with Image.open(saved.value.path()) as recorded:
        stills = []
        for index in range(0, recorded.n_frames, FILM_EVERY):  # type: ignore[attr-defined]
            recorded.seek(index)
            width, height = recorded.size
            small = (FILM_WIDTH, round(height * FILM_WIDTH / width))
            stills.append(recorded.convert("RGB").resize(small, Image.Resampling.LANCZOS))
    stills[0].save(
        path,
        save_all=True,
        append_images=stills[1:],
        duration=100 * FILM_EVERY,
        loop=0,
        quality=30,
        method=6,
    )
    print(f"{path}: {len(stills)} stills, {path.stat().st_size / 1000:.0f} kB")


PAUSE = """async () => {
  const start = performance.now();
  document.getElementById("play").click();
  while (lab.views[0].frame.head.playing) await new Promise((done) => setTimeout(done, 1));
  return performance.now() - start;
}"""


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--seconds", type=float, default=60.0, help="default: %(default)s")
    options.add_argument("--film", type=Path, help="a WebP file to record into")
    asked = options.parse_args()
    seconds = 3.0 if asked.quick else asked.seconds
    command = [sys.executable, "-m", "training.lab", "--port", "0"]
    lab = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert lab.stdout is not None
        url = lab.stdout.readline().split()[4]
        with sync_playwright() as playwright:
            chromium = shutil.which("chromium")
            browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            page = browser.new_page(viewport={"width": 1400, "height": 1000})
            if asked.film:
                film(page, url, asked.film)
            else:
                page.goto(url)
                measure(page, lab.pid, seconds)
            browser.close()
    finally:
        lab.terminate()
        lab.wait()


if __name__ == "__main__":
    main()
