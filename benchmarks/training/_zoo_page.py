"""The zoo's page: tables and pictures of the cells that are there."""

import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _zoo_cells import Cell, made
from PIL import Image, ImageDraw


@dataclass(frozen=True)
class Row:
    """A recipe on a data set, over its seeds."""

    recipe: str
    results: list[dict[str, Any]]

    def last(self, name: str) -> list[float]:
        return [each["trace"][-1][name] for each in self.results if not each["failed"]]

    def half(self, name: str) -> list[list[float]]:
        """Where it was looked at, a list for each seed."""
        return [
            [mark[name] for mark in each["trace"] if name in mark]
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
        if not self.last("D_real"):
            return "-"
        return f"{_mean(self.last('D_real')):.2f} / {_mean(self.last('D_fake')):.2f}"


def _mean(values: list[float]) -> float:
    return statistics.mean(values) if values else math.nan


def _short(values: list[float], digits: int) -> str:
    return f"{statistics.mean(values):.{digits}f}" if values else "-"


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
            f"| {_spread(row.last('coverage'), 2)} | {_short(row.last('modes'), 1)} "
            f"| {_short(swings, 2)} | {row.gap()} | {row.num_failed} | {row.cpu_s():.0f} |"
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
            f"| {_spread(row.last('reverse_kl'), 2)} | {_short(kept, 1)} "
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
        budget = here[0].budget
        counts = sorted({len(row.results) for row in rows})
        size = f", batches of {budget.batch_size}" if budget.batch_size else ""
        table = digits_table(rows) if dataset == "digits" else points_table(rows)
        names = [line.split("`")[1] for line in table if line.startswith("| `")]
        sheet(names, dataset, out).save(folder / f"{dataset}.png", optimize=True)
        seeds = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
        parts += [f"## {dataset}", "", f"{budget.kimg:g} kimg{size}; {seeds} seeds.", ""]
        parts += [*table, "", f"![{dataset}]({folder.name}/{dataset}.png)", ""]
    return "\n".join(parts)


HEAD = """# The zoo

Written by `benchmarks/training/zoo.py`, whose docstring is the protocol: every recipe at one
budget, the mean and standard deviation over seeds, sorted by quality. The pictures are of seed 0,
in the order of the tables; every recipe's paper is in `python -m training.run --list`.

The budget is what two cores can do, not what the methods need: it shows how fast and how steadily
each gets somewhere, on small networks. Published figures, with their data, are in that list too.

"""
