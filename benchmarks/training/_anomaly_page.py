"""The tables of the anomaly benchmark, and what they say in words."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from _anomaly_runs import Job
from _log import Record
from _tables import row, table

from training.anomaly.command import MODEL
from training.anomaly.methods import METHODS

_DIGITS = 3  # of an AUROC: methods that are equal in them are equally good
FIGURES = {
    "auroc": "AUROC",
    "average_precision": "average precision",
    "false_alarms": "false alarms at p <= 0.05",
    "found": "found at p <= 0.05",
}


def tables(records: Sequence[Record], wanted: int) -> str:
    """AUROC by class, all figures by method, and who wins. wanted: how many jobs there are."""
    if not records:
        return "Not played yet.\n"
    methods = [MODEL, *METHODS]
    classes = sorted({each["job"]["normal"] for each in records})
    by_class = [_row_of(records, methods, normal) for normal in classes]
    means = [np.mean([each["methods"][name]["auroc"] for each in records]) for name in methods]
    by_class.append(row("all", len(records), *(f"{value:.3f}" for value in means)))
    by_method = [
        row(name, *(_over_classes(records, name, figure) for figure in FIGURES)) for name in methods
    ]
    return "\n".join(
        [
            _played(records, wanted),
            "",
            table(row("usual", "seeds", *methods), by_class),
            table(row("method", *FIGURES.values()), by_method),
            *_said(records, methods, classes),
            "",
        ]
    )


def spread(records: Sequence[Record], name: str, normal: str) -> float | None:
    """Standard deviation of a method's AUROC between the seeds of a class; None for one seed."""
    values = _values(records, name, "auroc", normal)
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _values(records: Sequence[Record], name: str, figure: str, normal: str) -> list[float]:
    return [each["methods"][name][figure] for each in records if each["job"]["normal"] == normal]


def _mean(records: Sequence[Record], name: str, normal: str) -> float:
    return round(float(np.mean(_values(records, name, "auroc", normal))), _DIGITS)


def _row_of(records: Sequence[Record], methods: Sequence[str], normal: str) -> str:
    means = {name: _mean(records, name, normal) for name in methods}
    best = max(means.values())
    cells = []
    for name in methods:
        deviation = spread(records, name, normal)
        text = f"{means[name]:.3f}" + ("" if deviation is None else f" +- {deviation:.3f}")
        cells.append(f"**{text}**" if means[name] == best else text)
    return row(normal, len(_values(records, MODEL, "auroc", normal)), *cells)


def _over_classes(records: Sequence[Record], name: str, figure: str) -> str:
    """Mean over classes, and the lowest and highest class."""
    classes = sorted({each["job"]["normal"] for each in records})
    means = [float(np.mean(_values(records, name, figure, normal))) for normal in classes]
    return f"{np.mean(means):.3f} ({min(means):.3f} .. {max(means):.3f})"


def _played(records: Sequence[Record], wanted: int) -> str:
    job = Job(**{each.name: records[0]["job"][each.name] for each in fields(Job)})
    images = records[0]["images"]
    spent = sum(each["cpu_s"] for each in records) / 60
    return (
        f"{len(records)} of {wanted} trainings were played, {spent:.0f} minutes of CPU time: "
        f"{job.resolution}x{job.resolution} pixels, generator {job.kimg:g} kimg, encoder "
        f"{job.encoder_kimg:g} kimg, {records[0]['num_parameters']:,} parameters; of class "
        f"{job.normal} {images['train']:,} images to learn from, {images['calibration']:,} to "
        f"calibrate, {images['usual']:,} usual and {images['unusual']:,} others to test."
    )


def _said(records: Sequence[Record], methods: Sequence[str], classes: Sequence[str]) -> list[str]:
    lines = []
    for name in methods:
        ahead = [
            normal
            for normal in classes
            if _mean(records, name, normal) > _mean(records, MODEL, normal)
        ]
        if name != MODEL:
            where = f"for {', '.join(ahead)}" if ahead else "for no class"
            text = f"**{name} has a higher AUROC than {MODEL}** {where}"
            lines.append(f"- {text} ({len(ahead)} of {len(classes)}).")
    deviations = [spread(records, MODEL, normal) for normal in classes]
    known: list[Any] = [each for each in deviations if each is not None]
    if known:
        lines.append(
            f"- Standard deviation of {MODEL}'s AUROC from seed to seed: {np.mean(known):.3f} in "
            f"the mean, {max(known):.3f} at most."
        )
    rates = [each["methods"][MODEL]["false_alarms"] for each in records]
    expected = np.mean([each["expected_false_alarms"] for each in records])
    lines.append(
        f"- False alarms of {MODEL} at p <= 0.05: {np.mean(rates):.3f} over all classes and seeds; "
        f"{expected:.3f} is expected with so many calibration images."
    )
    return lines
