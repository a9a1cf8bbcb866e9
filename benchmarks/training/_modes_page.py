"""The tables of docs/coverage.md, which the coverage benchmark writes between the page's marks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from _log import Log, Record
from _modes_arms import ARMS, AUTHORS
from _modes_runs import Job, range_jobs, score
from _tables import fill as fill_page
from _tables import listed, mean, row, rule, table

from training.evaluation.metrics.modes import MIXTURES
from training.recipes import RECIPES

EVEN = {"ring-8": 0.01, "grid-25": 0.02}
"""Reverse KL up to which modes are evenly filled; exact draws have about 0.001 and 0.005."""


@dataclass(frozen=True)
class Known:
    """A row that others have published, with the figures of each mixture as they print them."""

    name: str
    source: str
    ring: tuple[str, str, str]
    grid: tuple[str, str, str]


_LIN, _VEEGAN = "Lin et al. 2018", "Srivastava et al. 2017"
PUBLISHED = (
    Known("GAN", _LIN, ("6.3 +- 0.5", "98.2", "0.45"), ("17.3 +- 0.8", "94.8", "0.70")),
    Known("ALI", _LIN, ("6.6", "97.6", "0.36"), ("24.1", "95.7", "0.14")),
    Known("VEEGAN", _VEEGAN, ("8", "52.9", "-"), ("24.6", "40", "-")),
    Known("PacGAN2", _LIN, ("7.9 +- 0.1", "95.6", "0.07"), ("23.8", "91.3", "0.13")),
    Known("PacGAN4", _LIN, ("7.8", "95.9", "0.07"), ("24.8 +- 0.2", "93.6", "0.04")),
)
_FIGURES = "modes | good % | reverse KL | steps of G | kimg | CPU s | seeds |"


def fill(path: Path, log: Log, level: Any, name: str) -> None:
    """Writes the tables of what the log holds into a page. level: what was played, by that name.

    Raises:
        ValueError: the page has no marks, or one of an unknown table.
    """
    tables = {"recipes": recipes(log), "played": played(log, name), "range": described(level)}
    tables["search"] = searched(level)
    tables["seeds"] = seeds(log)
    for dataset in MIXTURES:
        tables[f"range-{dataset}"] = ranges(log, dataset, level)
        tables[f"authors-{dataset}"] = authors(log, dataset, level)
        tables[f"tuned-{dataset}"] = tuned(log, dataset)
    fill_page(path, tables)


def recipes(log: Log) -> str:
    """The recipes at their whole length beside the published rows."""
    lines = [f"| data | | {_FIGURES}", rule(9)]
    for dataset, mixture in MIXTURES.items():
        kimg = RECIPES[dataset].config.total_kimg
        records = [r for r in log.all(table="recipe", dataset=dataset) if r["job"]["kimg"] == kimg]
        if records:
            lines.append(f"| {dataset} | **the recipe `{dataset}`** | {_row(records)} |")
            missing = [r for r in records if r["failed"] or r["modes"] < len(mixture.centres)]
            for record in missing:
                told = record["failed"] or f"{record['modes']} modes"
                lines.append(f"| {dataset} | its seed {record['job']['seed']}: {told} |{' |' * 7}")
        for known in PUBLISHED:
            found = known.ring if dataset == "ring-8" else known.grid
            runs = "10" if known.source == _LIN else "-"
            cells = " | ".join((*found, "-", "-", "-", runs))
            lines.append(f"| {dataset} | {known.name} ({known.source}) | {cells} |")
    return "\n".join(lines) + "\n"


def seeds(log: Log) -> str:
    """The recipes' trainings one by one: where the points that aren't good are."""
    rows = []
    for dataset in MIXTURES:
        kimg = RECIPES[dataset].config.total_kimg
        for record in sorted(
            log.all(table="recipe", dataset=dataset, kimg=kimg), key=lambda r: r["job"]["seed"]
        ):
            names = ("good_of_many", "beside", "between")
            many = [f"{100 * record[name]:.1f}" if name in record else "-" for name in names]
            good = f"{100 * record['good']:.1f}"
            rows.append(row(dataset, record["job"]["seed"], record["modes"], good, *many))
    head = (
        "| data | seed | modes | good % of 2,500 | good % of 20,000 | 3 to 10 sigma away | "
        "between modes |"
    )
    return table(head, rows)


def described(level: Any) -> str:
    """The fixed grid in a sentence."""
    return (
        f"The grid: rates {listed(level.rates)}, momenta {listed(level.momenta)}, steps of D "
        f"{listed(level.steps_D)}; one seed, {level.range_kimg:g} kimg shown to D in each cell.\n"
    )


def searched(level: Any) -> str:
    """The search in a sentence."""
    return (
        f"{level.candidates} settings, the last round at {level.tuned_kimg:g} kimg, as is what the "
        "table has.\n"
    )


def ranges(log: Log, dataset: str, level: Any) -> str:
    """The share of the grid at which each method finds all modes, and its best cell.

    A method whose cells weren't all played is left out: the rest may be the harder ones.
    """
    num = len(MIXTURES[dataset].centres)
    rows, missing = [], []
    for arm in ARMS:
        cells_of = range_jobs([dataset], [arm], level.grid, level.range_kimg)
        played_cells = [job.among(log) for job in cells_of]
        records = [record for record in played_cells if record is not None]
        if len(records) < len(played_cells):
            missing.append(f"`{arm}`")
            continue
        total = len(records)
        found = [r for r in records if not r["failed"] and r["modes"] == num]
        even = [r for r in found if r["reverse_kl"] <= EVEN[dataset]]
        best = max(records, key=score)
        knobs = best["job"]["knobs"]
        cells = (
            f"`{arm}`",
            f"{len(found)}/{total} ({len(found) / total:.0%})",
            f"{len(even)}/{total} ({len(even) / total:.0%})",
            str(best["modes"]),
            f"{100 * best['good']:.1f}",
            _kl(best),
            *(f"{knobs[name]:g}" for name in ("lr", "beta1", "steps_D")),
            f"{np.mean([r['cpu_s'] for r in records]):.0f}",
        )
        key = (-len(even) / total, -len(found) / total, -best["good"])
        rows.append((key, f"| {' | '.join(cells)} |"))
    head = (
        "| method | all modes | and even | best cell: modes | good % | reverse KL | rate | "
        "momentum | steps of D | CPU s a cell |"
    )
    made = table(head, [line for _, line in sorted(rows)])
    return made + (f"\nNot played: {', '.join(missing)}.\n" if rows and missing else "")


def authors(log: Log, dataset: str, level: Any) -> str:
    """Methods at their authors' settings, and how far on their way they are."""
    rows = []
    for arm, entry in AUTHORS.items():
        job = Job(table="authors", arm=arm, dataset=dataset, seed=0, share=level.share)
        records = [
            record
            for record in log.all(table="authors", dataset=dataset, arm=arm)
            if replace(job, seed=record["job"]["seed"]).among(log) is record
        ]
        if records:
            share = records[0]["steps_G"] / entry.steps_G
            rows.append(f"| `{arm}` | {entry.source} | {share:.2%} | {_row(records)} |")
    return table(f"| method | settings of | share of their steps | {_FIGURES}", rows)


def tuned(log: Log, dataset: str) -> str:
    """What the search chose, on seeds that it had not seen."""
    rows = []
    for arm in ARMS:
        if records := log.all(table="tuned", dataset=dataset, arm=arm):
            knobs = records[-1]["job"]["knobs"]  # another search may have chosen others before
            records = [each for each in records if each["job"]["knobs"] == knobs]
            names = ("lr", "beta1", "steps_D", "strength", "width")
            setting = ", ".join(f"{knobs[name]:g}" for name in names)
            means = [-float(np.mean([r[name] for r in records])) for name in ("modes", "good")]
            rows.append((means, f"| `{arm}` | {setting} | {_row(records)} |"))
    head = f"| method | rate, momentum, steps of D, strength, width | {_FIGURES}"
    return table(head, [row for _, row in sorted(rows)])


def played(log: Log, name: str) -> str:
    """What all of it has cost. name: the level's."""
    records = log.records.values()
    spent = sum(record["cpu_s"] for record in records) / 60
    failed = sum(1 for record in records if record["failed"])
    return (
        f"The tables are of the level `{name}`: {len(records)} trainings in {spent:.0f} minutes of "
        f"CPU time; {failed} ended with a loss or gradient that was not finite.\n"
    )


def _row(records: Sequence[Record]) -> str:
    kls = [math.nan if r["reverse_kl"] is None else r["reverse_kl"] for r in records]
    return " | ".join(
        (
            mean([r["modes"] for r in records], 1),
            mean([100 * r["good"] for r in records], 1),
            mean(kls, 3),
            f"{records[0]['steps_G']:,}",
            f"{records[0]['shown_kimg']:,.0f}",
            f"{np.mean([r['cpu_s'] for r in records]):.0f}",
            str(len(records)),
        )
    )


def _kl(record: Record) -> str:
    return "-" if record["reverse_kl"] is None else f"{record['reverse_kl']:.3f}"
