"""The zoo's page: tables and pictures of the cells that are there."""

import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _zoo_cells import Cell, made
from _zoo_sheets import digits_sheet


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
        """D(real) and D(fake) at the end, of a D that is a classifier."""
        if not all("D_real" in each["trace"][-1] for each in self.results if not each["failed"]):
            return "-"
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
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} +- {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def digits_table(rows: list[Row]) -> list[str]:
    rows = sorted(rows, key=lambda row: _mean(row.last("frechet_distance") or [math.inf]))
    some = next(row.results[0]["trace"][-1] for row in rows if row.last("modes"))
    lines = [
        f"Real images (digits against digits) have {some['floor_frechet_distance']:.3g}, noise "
        f"{some['ceiling_frechet_distance']:.3g}; coverage {some['floor_coverage']:.2f} and "
        f"{some['ceiling_coverage']:.2f}.",
        "",
        "| recipe | Frechet distance | coverage | classes | swing | D(real) / D(fake) | not finite "
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


def report(wanted: list[Cell], out: Path, folder: Path) -> dict[str, str]:
    """The page's tables by their marks; pictures go to a folder beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    tables, results = {}, []
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
        if not rows:
            tables[f"zoo-{dataset}"] = "Not played yet.\n"
            continue
        results += [result for row in rows for result in row.results]
        budget = here[0].budget
        counts = sorted({len(row.results) for row in rows})
        size = f", batches of {budget.batch_size}" if budget.batch_size else ""
        table = digits_table(rows)
        names = [line.split("`")[1] for line in table if line.startswith("| `")]
        digits_sheet(names, out).save(folder / f"{dataset}.png", optimize=True)
        seeds = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
        parts = [f"{budget.kimg:g} kimg{size}; seeds: {seeds}.", "", *table, ""]
        parts.append(f"![{ALT[dataset]}]({folder.name}/{dataset}.png)")
        tables[f"zoo-{dataset}"] = "\n".join(parts) + "\n"
    hours = sum(result["cpu_s"] for result in results) / 3600
    tables["zoo-played"] = f"{len(results)} trainings, {hours:.1f} hours of CPU time.\n"
    return tables


ALT = {
    "digits": "A row of 20 digits for each recipe below a row of real ones: the upper rows are as "
    "legible as the real ones, the last one is noise",
}
