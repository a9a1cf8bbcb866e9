"""The zoo's page: tables and pictures of the cells that are there."""

import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _zoo_cells import Cell, made
from _zoo_sheets import digits_sheet, points_sheet


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


def points_table(rows: list[Row]) -> list[str]:
    rows = sorted(rows, key=lambda row: (-_mean(row.last("modes")), -_mean(row.last("good"))))
    lines = [
        "| recipe | modes | good % | reverse KL | swing: fewest modes | not finite | CPU s |",
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


def report(wanted: list[Cell], out: Path, folder: Path) -> str:
    """The page, with its pictures in a folder beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    parts, results = [], []
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
        results += [result for row in rows for result in row.results]
        budget = here[0].budget
        counts = sorted({len(row.results) for row in rows})
        size = f", batches of {budget.batch_size}" if budget.batch_size else ""
        table = digits_table(rows) if dataset == "digits" else points_table(rows)
        names = [line.split("`")[1] for line in table if line.startswith("| `")]
        page = (
            digits_sheet(names, out) if dataset == "digits" else points_sheet(names, dataset, out)
        )
        page.save(folder / f"{dataset}.png", optimize=True)
        seeds = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
        parts += [f"## {dataset}", "", f"{budget.kimg:g} kimg{size}; {seeds} seeds.", ""]
        parts += [*table, "", f"![{ALT[dataset]}]({folder.name}/{dataset}.png)", ""]
    hours = sum(result["cpu_s"] for result in results) / 3600
    return HEAD.format(num=len(results), hours=hours) + "\n".join(parts)


ALT = {
    "digits": "A row of 20 digits for each recipe below a row of real ones: the upper rows are as "
    "legible as the real ones, the last one is noise",
    "ring-8": "2,500 points of each recipe, and the eight centres that they should gather in",
    "grid-25": "2,500 points of each recipe, and the 25 centres that they should gather in",
}

HEAD = """# The zoo

Every recipe at one budget, on three sets of data: the mean and standard deviation over seeds, the
best first. Made by

```sh
.venv/bin/python benchmarks/training/zoo.py --write docs/zoo.md
```

whose docstring is the protocol: {num} trainings, {hours:.1f} hours of CPU time, and about as much
again to look at them. The pictures are of seed 0, the data itself first, then the recipes in the
order of the table; grey circles are the true centres, the number beside a name is the modes that
this seed found. Every recipe's paper, and what others have published for it with their data, is in
`.venv/bin/python -m training.run --list`.

The budget is what two cores can do, not what the methods need: it shows how fast and how steadily
each gets somewhere, on small networks.

- **kimg**: thousands of real images, or points, that D was shown.
- **Frechet distance**: between Gaussians fitted to features of real and of generated digits. The
  features are those of a classifier of these digits: no FID of elsewhere compares with it.
- **coverage**: share of real digits that have a generated one among their nearest neighbours.
- **classes**: kinds of digit among those that are made, by a support vector machine, of ten.
- **modes**: Gaussians that got at least one good point, of 8 or of 25.
- **good %**: share of the points within 3 sigma of a centre; of the data's own it is 98.9.
- **reverse KL**: KL(generated || data) over the modes, in nats, each point counted for its nearest
  centre: 0 where all get the same share, wherever around their centres the points lie.
- **swing**: how much worse than its best the averaged generator gets in the second half of the
  training, which is looked at three times: the highest over the lowest Frechet distance, or the
  fewest modes at any look.
- **D(real) / D(fake)**: sigmoid of D's logits at the end, 0.5 / 0.5 where it can't tell them apart;
  of a Wasserstein, hinge or least-squares D, which is no classifier, it says little.
- **not finite**: trainings that ended because a loss or gradient was infinite or no number.
- **CPU s**: processor seconds of one training, without looking at it.

On ring-8 and grid-25 all recipes play their game on the same perceptrons: only the losses, the
penalties, the optimisers and who moves when are the recipe's own. `article` (Goodfellow et al.
2014) and `dcgan` differ in their networks alone: there they are one game, and their rows are equal.

"""
