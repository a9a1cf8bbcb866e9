"""An evaluation as a table for people and as JSON for programs."""

from typing import Any

import msgspec

from models.manifest import Metric
from training.evaluation.measures import ALL_FIGURES, MEASURES

_HEADER = ("figure", "", "value", "95% interval", "floor (real)", "ceiling (noise)")
_CEILINGLESS = tuple(
    name for entry in MEASURES.values() if entry.needs == "pixels" for name in entry.figures
)  # noise is no copy: it is not the worst that a generator of copies can be
_IN_COLUMNS = ("interval", "floor", "ceiling", "resamples")
_OWN = {key for entry in MEASURES.values() for key in entry.protocol}


def table(metrics: tuple[Metric, ...]) -> str:
    """A line a figure, and below how each was measured. Metrics that aren't figures: left out."""
    metrics = tuple(metric for metric in metrics if metric.name in ALL_FIGURES)
    rows = [_HEADER, *(_row(metric) for metric in metrics)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    lines = []
    for row in rows:
        left = [row[0].ljust(widths[0]), row[1].ljust(widths[1])]
        right = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        lines.append("  ".join(left + right).rstrip())
    return "\n".join([*lines, "", *_protocols(metrics)])


def warnings(metrics: tuple[Metric, ...]) -> list[str]:
    """Figures that can't tell real images from noise here, and so tell nothing of a model."""
    return [
        f"warning: {metric.name} is {metric.protocol['floor']:.4g} for real images and for noise: "
        "it says nothing on this data; take other --features"
        for metric in metrics
        if metric.name in ALL_FIGURES
        and metric.name not in _CEILINGLESS
        and metric.protocol["floor"] == metric.protocol["ceiling"]
    ]


def record(subject: dict[str, Any], metrics: tuple[Metric, ...]) -> dict[str, Any]:
    """All of it, as JSON takes it. subject: what was judged, and on what."""
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
    """Each protocol once, after the figures that share it; in brackets what is only one's own."""
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
