"""The tables of docs/watchdog.md, which its benchmark writes between the page's marks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from _log import Log, Record
from _tables import fill as fill_page
from _tables import row, table
from _watchdog_cases import HEALTHY, PLANTED

from training.watchdog.detectors import DETECTORS

CLASSES, COVERAGE = 10, 0.2
"""What a training of the zoo must have reached at its end, so that its alarms were false."""


def is_good(record: Record) -> bool:
    """True where a training of the zoo makes all kinds of digits, and varied ones."""
    figures = record["figures"]
    return bool(figures) and (figures["modes"] >= CLASSES and figures["coverage"] >= COVERAGE)


def fill(path: Path, log: Log) -> None:
    """Writes the tables of what the log holds into a page; those that it holds nothing of stay."""
    tables = {"planted": planted, "healthy": healthy, "zoo": zoo}
    fill_page(path, {name: made(log) for name, made in tables.items() if log.all(part=name)})


def planted(log: Log) -> str:
    """When each planted failure was told."""
    rows, caught = [], 0
    for case in PLANTED:
        for record in log.all(part="planted", name=case.name):
            when = [a["kimg"] for a in record["alarms"] if a["failure"] == case.failure]
            others = sorted({a["failure"] for a in record["alarms"]} - {case.failure})
            caught += bool(when)
            told = f"{when[0]:.1f}" if when else "**missed**"
            beside = ", ".join(f"`{name}`" for name in others) or "-"
            rows.append(row(case.name, f"`{case.failure}`", told, beside))
    head = "| planted | detector | alarm at kimg | others beside it |"
    return table(head, rows) + f"\n{caught} of {len(rows)} are caught.\n"


def healthy(log: Log) -> str:
    """How many of the trainings that converge raised any alarm."""
    rows = []
    for name, words in HEALTHY.items():
        records = log.all(part="healthy", name=name)
        if records:
            rows.append(row(f"`{words}`", _loud(records), _nearest(records)))
    return table("| training | any alarm, of seeds | nearest to a threshold |", rows)


def zoo(log: Log) -> str:
    """What the recipes of the zoo raised, and which of the alarms were false."""
    rows = []
    num_good = num_false = 0
    everything = log.all(part="zoo")
    names = dict.fromkeys(record["job"]["name"] for record in everything)
    for name in names:
        for kimg in sorted({r["job"]["kimg"] for r in everything if r["job"]["name"] == name}):
            records = log.all(part="zoo", name=name, kimg=kimg)
            good = [record for record in records if is_good(record)]
            loud = [record for record in good if record["alarms"]]
            num_good, num_false = num_good + len(good), num_false + len(loud)
            told = sorted({f"`{a['failure']}`" for r in records for a in r["alarms"]})
            figures = [r["figures"] for r in records if r["figures"]]
            cells = (
                f"`{name}`",
                f"{kimg:g}",
                len(records),
                ", ".join(told) or "-",
                f"{len(loud)} of {len(good)}",
                f"{np.mean([f['coverage'] for f in figures]):.2f}" if figures else "-",
                f"{np.mean([f['modes'] for f in figures]):.1f}" if figures else "-",
                _nearest(records),
            )
            rows.append(row(*cells))
    head = (
        "| recipe | kimg | seeds | alarms | false, of those that did well | coverage | classes | "
        "nearest to a threshold |"
    )
    said = (
        f"\nOf {len(everything)} trainings {num_good} did well ({CLASSES} classes, coverage of "
        f"{COVERAGE} or more at the end); {num_false} of these raised an alarm.\n"
    )
    return table(head, rows) + (said if rows else "")


def _loud(records: Sequence[Record]) -> str:
    return f"{sum(bool(record['alarms']) for record in records)} of {len(records)}"


def _nearest(records: Sequence[Record]) -> str:
    """The figure that came nearest to its threshold, as a share of it."""
    found: list[tuple[float, str]] = []
    for record in records:
        for failure, value in record["reached"].items():
            detector = DETECTORS[failure]
            if detector.alarming == "above":
                share = value / detector.threshold
            else:
                share = detector.threshold / max(value, 1e-12)
            found.append((share, f"`{failure}` {value:.3g} ({detector.threshold:g})"))
    return max(found)[1] if found else "-"
