"""An evaluation as a table for people and as JSON for programs."""

from pathlib import Path
from typing import Any

import msgspec

from models.bundle.manifest import Metric
from training.errors import ConfigError, EvaluationError
from training.evaluation.measures import ALL_FIGURES, MEASURES
from training.evaluation.plan import PUBLISHED_IMAGES, WHOLE

_PUBLISHED_K = 3
_HEADER = ("figure", "", "value", "95% interval", "real", "noise")
_CEILINGLESS = tuple(
    name for entry in MEASURES.values() if entry.needs == "pixels" for name in entry.figures
)  # noise copies nothing, so for these figures it isn't the bad end
_NOTHING = (
    "no figures: there are too few real images to compare with. Half of them stand for new real "
    "ones; the other half must be some dozens at least"
)
_IN_COLUMNS = ("interval", "floor", "ceiling", "resamples")
_OWN = {key for entry in MEASURES.values() for key in entry.protocol}


def table(metrics: tuple[Metric, ...]) -> str:
    """A table with a line for each figure, followed by the protocols.

    Metrics that aren't figures, such as an encoder's parity, are left out.
    """
    metrics = tuple(metric for metric in metrics if metric.name in ALL_FIGURES)
    if not metrics:
        return _NOTHING
    rows = [_HEADER, *(_row(metric) for metric in metrics)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    lines = []
    for row in rows:
        left = [row[0].ljust(widths[0]), row[1].ljust(widths[1])]
        right = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        lines.append("  ".join(left + right).rstrip())
    return "\n".join([*lines, "", *_protocols(metrics)])


def warnings(metrics: tuple[Metric, ...]) -> list[str]:
    """A warning for each figure that is equal for real images and noise: it is useless here."""
    return [
        f"warning: {metric.name} is {metric.protocol['floor']:.4g} for real images and for noise: "
        "it tells nothing about a model on this data; take other --features"
        for metric in metrics
        if metric.name in ALL_FIGURES
        and metric.name not in _CEILINGLESS
        and metric.protocol["floor"] == metric.protocol["ceiling"]
    ]


def comparisons(metrics: tuple[Metric, ...]) -> list[str]:
    """A line for each kind of figure that is published: does it compare, and if not, why not?

    Published FIDs have Inception's features, 50,000 generated images and all real ones; published
    precision and recall (pr50k3) have VGG-16's features and the third neighbour as well.
    """
    lines = []
    by_name = {metric.name: metric.protocol for metric in metrics}
    for name, published in (("fid", "FIDs"), ("frechet_distance", "FIDs"), ("precision", "pr50k3")):
        if (protocol := by_name.get(name)) is None:
            continue
        found = protocol.get("features", "unknown")
        wanted = "VGG-16" if name == "precision" else "Inception"
        reasons = [] if wanted in str(found) else [f"the features are {found}, not {wanted}'s"]
        if name == "precision" and protocol.get("nearest_k") != _PUBLISHED_K:
            reasons.append(f"nearest_k is {protocol.get('nearest_k')}, not {_PUBLISHED_K}")
        if protocol.get("n") != PUBLISHED_IMAGES:
            reasons.append(f"n is {protocol.get('n')}, not {PUBLISHED_IMAGES}")
        if protocol.get("reference") != WHOLE:
            reasons.append("the reference is a half of the data, not all (--whole-data)")
        verdict = "does not compare" if reasons else "compares"
        why = "; ".join(reasons) or "look whether theirs is of the same images, mirrored or not"
        lines.append(f"note: {name} {verdict} with published {published}: {why}")
    return lines


def record(subject: dict[str, Any], metrics: tuple[Metric, ...]) -> dict[str, Any]:
    """The evaluation as JSON types. subject: entries that name the model."""
    return {**subject, "metrics": msgspec.to_builtins(metrics)}


def _row(metric: Metric) -> tuple[str, ...]:
    protocol = metric.protocol
    interval = protocol.get("interval")
    return (
        metric.name,
        "^" if ALL_FIGURES[metric.name] == "higher" else "v",
        f"{metric.value:.4g}",
        "" if interval is None else f"{interval[0]:.4g} .. {interval[1]:.4g}",
        f"{protocol['floor']:.4g}",
        f"{protocol['ceiling']:.4g}",
    )


def _protocols(metrics: tuple[Metric, ...]) -> list[str]:
    """The protocols, each once after the figures that share it.

    A measure's own entries, such as its kernel, follow its figures in brackets.
    """
    groups: dict[str, dict[str, list[str]]] = {}
    for metric in metrics:
        own = {key: metric.protocol[key] for key in metric.protocol if key in _OWN}
        rest = {k: v for k, v in metric.protocol.items() if k not in (*_IN_COLUMNS, *_OWN)}
        groups.setdefault(_line(rest), {}).setdefault(_line(own), []).append(metric.name)
    lines = []
    for protocol, names in groups.items():
        figures = [
            ", ".join(figures) + (f" ({own})" if own else "") for own, figures in names.items()
        ]
        lines.append(f"{', '.join(figures)}:\n  {protocol}")
    return lines


def _line(protocol: dict[str, Any]) -> str:
    return "; ".join(f"{key} {value}" for key, value in protocol.items())


def require_folder(path: Path | None) -> None:
    """Refuses a file of --report that can't be written, before anything is measured.

    Raises:
        ConfigError: its folder is missing.
    """
    if path is not None and not path.absolute().parent.is_dir():
        raise ConfigError(f"report is {str(path)!r}: its folder does not exist; make it")


def write_report(path: Path | None, text: str) -> None:
    """Writes --report, if it is asked for.

    Raises:
        EvaluationError: it can't be written.
    """
    if path is None:
        return
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise EvaluationError(
            f"report is {str(path)!r}: {error.strerror}; choose another file"
        ) from error
