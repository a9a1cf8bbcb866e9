"""Every recipe at one budget on digits, ring-8 and grid-25: quality and stability, side by side.

A cell is a recipe, a data set and a seed. Each is trained by `training.stepper.Stepper`, as
`python -m training.run` does it, and looked at five times in its second half. Cells are files under
--out and are made once: the benchmark can be stopped and goes on where it was. All cells of a data
set show D the same number of images, so a recipe with five steps of D for one of G has a fifth of
G's steps.

    digits   scikit-learn's digits at 32x32, the recipe's networks; Frechet distance and coverage on
             features of a classifier trained on them, against held-out digits (the floor: digits
             against digits); classes by an SVM
    ring-8   8 Gaussians of sigma 0.01 on a circle of radius 1, and
    grid-25  25 of sigma 0.05, {-4, -2, 0, 2, 4} squared: the recipe's game on perceptrons
             (`training/stability/toys.py`), 2,500 points, good within 3 sigma of a centre, a mode
             counts with one good point (the protocol of Lin et al. 2018)

swing is how much worse than its best the average generator gets in the second half: the highest
over the lowest Frechet distance, or the fewest modes at any mark.

Run: python benchmarks/training/zoo.py [--quick] [--write docs/zoo.md]
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from models.generator import Sampler
from models.grid import grid, png
from training.config import TrainingConfig
from training.data import Batches, DataConfig, load
from training.evaluation.judge import assess
from training.evaluation.modes import MIXTURES, NUM_SAMPLES, modes
from training.evaluation.plan import Plan
from training.recipes import RECIPES
from training.samples import TorchGenerator
from training.stability.toys import MixtureDeal, fresh, points, toy
from training.state import State
from training.stepper import Stepper

MARKS = 8
DATASETS = ("digits", *MIXTURES)
WIDE = {"mnist", "fashion-mnist", "cifar10", "folder"}  # about data, not about a method
NO_TOY = (
    {"vaegan", "diffaugment", "ada"}
    | {name for name in RECIPES if name.endswith("-conditional")}
    | {"digits"}
)
NUM_IMAGES = 800
FIGURES = ("frechet_distance", "coverage", "modes")
PANEL = 96
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much each cell of a data set is trained."""

    kimg: float
    batch_size: int | None = None  # None: the recipe's


BUDGETS = {
    "digits": Budget(kimg=20),
    "ring-8": Budget(kimg=320, batch_size=128),
    "grid-25": Budget(kimg=320, batch_size=128),
}
QUICK = {
    "digits": Budget(kimg=2),
    "ring-8": Budget(kimg=26, batch_size=128),
    "grid-25": Budget(kimg=26, batch_size=128),
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training."""

    recipe: str
    dataset: str
    seed: int
    budget: Budget

    @property
    def name(self) -> str:
        return f"{self.dataset}-{self.recipe}-{self.seed}"

    def config(self) -> TrainingConfig:
        """The recipe's at this budget: its schedules are stretched to it."""
        config = RECIPES[self.recipe].config
        stretch = self.budget.kimg / config.total_kimg
        schedules = tuple(replace(each, kimg=each.kimg * stretch) for each in config.schedules)
        options: dict[str, Any] = {
            "schedules": schedules,
            "total_kimg": self.budget.kimg,
            "tick_kimg": self.budget.kimg,
            "seed": self.seed,
        }
        if self.budget.batch_size:
            options["batch_size"] = self.budget.batch_size
        if self.dataset != "digits":
            return toy(config, **options)
        if config.data.dataset != "digits":
            options["data"] = DataConfig(conditional=config.data.conditional)
        return replace(config, **options)


def run(cell: Cell, out: Path) -> dict[str, Any]:
    """Trains a cell, looks at it, and writes its file."""
    torch.set_num_threads(1)
    config = cell.config()
    eye = Digits(config, out) if cell.dataset == "digits" else Points(config, cell.dataset)
    stepper = eye.stepper
    start, trace, failed = time.process_time(), [], None
    for mark in range(1, MARKS + 1):
        while stepper.state.cur_nimg < config.total_nimg * mark / MARKS and failed is None:
            stepper.step()
            trip = stepper.trip()
            failed = None if trip is None else f"{', '.join(trip.terms)} not finite"
        if failed:
            break
        means = stepper.meters.means()
        stepper.meters.reset()
        spent = time.process_time() - start
        figures = eye.look() if mark >= MARKS / 2 else {}
        trace.append({"kimg": stepper.state.cur_nimg / 1000, **means, **figures})
        start += time.process_time() - start - spent  # looking is not counted
    eye.picture(out / f"{cell.name}.png")
    result = {
        "cell": asdict(cell),
        "trace": trace,
        "failed": failed,
        "cpu_s": time.process_time() - start,
    }
    partial = out / f".{cell.name}.partial"
    partial.write_text(json.dumps(result, indent=1))
    partial.rename(out / f"{cell.name}.json")
    return result


class Digits:
    """The digits, and how good generated ones are."""

    def __init__(self, config: TrainingConfig, out: Path) -> None:
        self.images = load(config.data)
        self.labelled = self.images
        if not config.data.conditional:
            self.labelled = load(replace(config.data, conditional=True))
        state = State.fresh(config, self.images.shape, CPU)
        batches = Batches(self.images, batch_size=config.batch_size, seed=config.seed)
        self.stepper = Stepper(config, state, batches)
        self.plan = Plan(
            features="classifier",
            cache=out / "cache",
            figures=FIGURES,
            num_images=NUM_IMAGES,
            num_resamples=0,
        )

    def look(self) -> dict[str, float]:
        found = assess(self._sampler(), self.labelled, self.plan, num_classes=self._num_classes)
        figures = {metric.name: metric.value for metric in found}
        for metric in found:
            figures[f"floor_{metric.name}"] = metric.protocol["floor"]
            figures[f"ceiling_{metric.name}"] = metric.protocol["ceiling"]
        return figures

    def picture(self, path: Path) -> None:
        images = self._sampler()(np.arange(20, dtype=np.uint64))
        path.write_bytes(png(grid(images, 20)))

    @property
    def _num_classes(self) -> int:
        return self.images.shape.num_classes

    def _sampler(self) -> Sampler:
        z_dim = self.stepper.config.network.z_dim
        generate = TorchGenerator(self.stepper.state.G_ema)
        return Sampler(generate, z_dim=z_dim, num_classes=self._num_classes)


class Points:
    """A mixture in the plane, and which of its modes are made."""

    def __init__(self, config: TrainingConfig, name: str) -> None:
        self.mixture = MIXTURES[name]
        self.stepper = Stepper(config, fresh(config), MixtureDeal(self.mixture, config))

    def look(self) -> dict[str, float]:
        found = modes(self._points(), self.mixture)
        return {
            "modes": found.caught,
            "good": found.good_share,
            "reverse_kl": found.reverse_kl if math.isfinite(found.reverse_kl) else 99.0,
        }

    def picture(self, path: Path) -> None:
        side = 1.25 * np.abs(self.mixture.centres).max()
        edges = np.linspace(-side, side, PANEL + 1)
        found = self._points()
        count, _, _ = np.histogram2d(found[:, 1], found[:, 0], bins=[edges, edges])
        shade = np.clip(255 - 120 * np.sqrt(count[::-1]), 0, 255).astype(np.uint8)
        Image.fromarray(shade).save(path)

    def _points(self) -> np.ndarray:
        return points(self.stepper.state.G_ema, NUM_SAMPLES, seed=0)


def cells(
    datasets: list[str], recipes: list[str], num_seeds: int, *, quick: bool
) -> Iterator[Cell]:
    for seed in range(num_seeds):
        for dataset in datasets:
            for recipe in recipes:
                if dataset == "digits" or recipe not in NO_TOY:
                    budget = (QUICK if quick else BUDGETS)[dataset]
                    yield Cell(recipe=recipe, dataset=dataset, seed=seed, budget=budget)


def made(cell: Cell, out: Path) -> dict[str, Any] | None:
    """The cell's result, if it was made at this budget."""
    path = out / f"{cell.name}.json"
    if not path.exists():
        return None
    result: dict[str, Any] = json.loads(path.read_text())
    return result if result["cell"] == asdict(cell) else None


def fill(wanted: list[Cell], out: Path, workers: int) -> None:
    """Makes what is missing, saying how far it is."""
    missing = [cell for cell in wanted if made(cell, out) is None]
    print(f"{len(wanted)} cells, {len(missing)} to make, {workers} at a time", flush=True)
    start = time.monotonic()
    # Spawned: a forked child of a process that has run torch inherits its threads' state.
    with ProcessPoolExecutor(max_workers=workers, mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(run, cell, out): cell for cell in missing}
        for num, done in enumerate(as_completed(waiting), 1):
            cell = waiting[done]
            if done.exception():
                pool.shutdown(cancel_futures=True)
            result = done.result()
            left = (time.monotonic() - start) / num * (len(missing) - num)
            last = result["trace"][-1] if result["trace"] else {}
            names = ("frechet_distance", "coverage", "modes", "good", "reverse_kl")
            figures = " ".join(f"{name} {last[name]:.3g}" for name in names if name in last)
            print(
                f"{num}/{len(missing)} {cell.name}: {result['failed'] or figures}, "
                f"{result['cpu_s']:.0f} s; left about {left / 60:.0f} min",
                flush=True,
            )


@dataclass(frozen=True)
class Row:
    """A recipe on a data set, over its seeds."""

    recipe: str
    results: list[dict[str, Any]]

    def last(self, name: str) -> list[float]:
        return [each["trace"][-1][name] for each in self.results if not each["failed"]]

    def half(self, name: str) -> list[list[float]]:
        """The second half's marks, a list for each seed."""
        return [
            [mark[name] for mark in each["trace"][MARKS // 2 - 1 :]]
            for each in self.results
            if not each["failed"]
        ]

    @property
    def num_failed(self) -> int:
        return sum(1 for each in self.results if each["failed"])

    def cpu_s(self) -> float:
        return statistics.mean(each["cpu_s"] for each in self.results)

    def gap(self) -> str:
        """D(real) and D(fake) at the end; meaningless for critics."""
        return f"{_mean(self.last('D_real')):.2f} / {_mean(self.last('D_fake')):.2f}"


def _mean(values: list[float]) -> float:
    return statistics.mean(values) if values else math.nan


def _spread(values: list[float], digits: int) -> str:
    if not values:
        return "-"
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} +- {spread:.{digits}f}"


def digits_table(rows: list[Row]) -> list[str]:
    rows = sorted(rows, key=lambda row: _mean(row.last("frechet_distance") or [math.inf]))
    some = next(row.results[0]["trace"][-1] for row in rows if row.last("modes"))
    lines = [
        f"Floor (digits against digits) {some['floor_frechet_distance']:.3g}, ceiling (noise) "
        f"{some['ceiling_frechet_distance']:.3g}; coverage {some['floor_coverage']:.2f} and "
        f"{some['ceiling_coverage']:.2f}.",
        "",
        "| recipe | Frechet distance | coverage | classes | swing | D(real) / D(fake) | failed "
        "| CPU s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        swings = [max(values) / min(values) for values in row.half("frechet_distance")]
        lines.append(
            f"| `{row.recipe}` | {_spread(row.last('frechet_distance'), 1)} "
            f"| {_spread(row.last('coverage'), 2)} | {_mean(row.last('modes')):.1f} "
            f"| {_mean(swings):.2f} | {row.gap()} | {row.num_failed} | {row.cpu_s():.0f} |"
        )
    return lines


def points_table(rows: list[Row]) -> list[str]:
    rows = sorted(rows, key=lambda row: _mean(row.last("reverse_kl") or [math.inf]))
    lines = [
        "| recipe | modes | good % | reverse KL | swing: fewest modes | failed | CPU s |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        kept = [min(values) for values in row.half("modes")]
        lines.append(
            f"| `{row.recipe}` | {_spread(row.last('modes'), 1)} "
            f"| {_spread([100 * value for value in row.last('good')], 1)} "
            f"| {_spread(row.last('reverse_kl'), 2)} | {_mean(kept):.1f} "
            f"| {row.num_failed} | {row.cpu_s():.0f} |"
        )
    return lines


def sheet(recipes: list[str], dataset: str, out: Path) -> Image.Image:
    """The first seed's pictures, one recipe below or beside the other, with its name."""
    pictures = [Image.open(out / f"{dataset}-{recipe}-0.png").convert("L") for recipe in recipes]
    width, height = pictures[0].size
    margin, columns = (150, 1) if dataset == "digits" else (0, 7)
    cell = (width + margin + 4, height + (4 if margin else 16))
    rows = math.ceil(len(pictures) / columns)
    page = Image.new("L", (cell[0] * columns, cell[1] * rows), 255)
    draw = ImageDraw.Draw(page)
    for index, (recipe, picture) in enumerate(zip(recipes, pictures, strict=True)):
        x, y = index % columns * cell[0], index // columns * cell[1]
        draw.text((x + 2, y + (height // 2 - 6 if margin else 1)), recipe, fill=0)
        page.paste(picture, (x + margin, y + (2 if margin else 14)))
    return page


def report(wanted: list[Cell], out: Path, folder: Path) -> str:
    """The page, with its pictures in a folder beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for dataset in dict.fromkeys(cell.dataset for cell in wanted):
        here = [cell for cell in wanted if cell.dataset == dataset]
        recipes = list(dict.fromkeys(cell.recipe for cell in here))
        rows = [
            Row(
                recipe,
                [result for cell in here if cell.recipe == recipe if (result := made(cell, out))],
            )
            for recipe in recipes
        ]
        rows = [row for row in rows if row.results]
        budget, num_seeds = here[0].budget, len({cell.seed for cell in here})
        size = f", batches of {budget.batch_size}" if budget.batch_size else ""
        table = digits_table(rows) if dataset == "digits" else points_table(rows)
        names = [line.split("`")[1] for line in table if line.startswith("| `")]
        sheet(names, dataset, out).save(folder / f"{dataset}.png", optimize=True)
        parts += [f"## {dataset}", "", f"{budget.kimg:g} kimg{size}, {num_seeds} seeds.", ""]
        parts += [*table, "", f"![{dataset}]({folder.name}/{dataset}.png)", ""]
    return "\n".join(parts)


HEAD = """# The zoo

Written by `benchmarks/training/zoo.py`, whose docstring is the protocol: every recipe at one
budget, the mean and standard deviation over seeds, sorted by quality. The pictures are of seed 0,
in the order of the tables; every recipe's paper is in `python -m training.run --list`.

The budget is what two cores can do, not what the methods need: it shows how fast and how steadily
each gets somewhere, on small networks. Published figures, with their data, are in the recipes.

"""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    recipes = [name for name in RECIPES if name not in WIDE]
    parser.add_argument("--quick", action="store_true", help="one seed, a twentieth of the budget")
    parser.add_argument("--recipes", nargs="*", choices=recipes, default=recipes)
    parser.add_argument("--datasets", nargs="*", choices=DATASETS, default=list(DATASETS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="trainings at a time, a core each")
    parser.add_argument("--out", type=Path, default=Path(".benchmarks/zoo"), help="cells and cache")
    parser.add_argument("--write", type=Path, help="page to write, with a folder of pictures")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    out = given.out / "quick" if given.quick else given.out
    out.mkdir(parents=True, exist_ok=True)
    num_seeds = 1 if given.quick else given.seeds
    wanted = list(cells(given.datasets, given.recipes, num_seeds, quick=given.quick))
    start = time.monotonic()
    fill(wanted, out, given.workers)
    page = given.write or out / "zoo.md"
    text = report(wanted, out, page.with_suffix(""))
    page.write_text(HEAD + text)
    print(f"figure zoo_cells {len(wanted)} trainings")
    print(f"figure zoo_time {(time.monotonic() - start) / 60:.1f} min")
    print(f"written: {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
