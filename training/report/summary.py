"""A run as the page shows it, from the files of its folder alone."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from training.report import samples
from training.report.again import command_of
from training.report.charts import Chart, charts_of
from training.report.history import History
from training.report.samples import Frame
from training.report.stability_results import curves, drawings, results_of
from training.report.verdict import Verdict, events_of, verdict_of
from training.runs.catalogue import Run
from training.runs.neighbours import NAME as NEIGHBOURS


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What there is to show of a run."""

    name: str
    """What the page calls it."""
    history: History
    verdict: Verdict
    facts: dict[str, str]
    """A few lines on what it is, in order."""
    charts: list[Chart]
    """Over the images shown."""
    planes: list[tuple[str, str, str]]
    """(title, how to read it, SVG) of each plane of eigenvalues."""
    curves: list[Chart]
    """Of the instrument's results."""
    measured: list[str]
    """The instrument's words."""
    events: list[dict[str, Any]]
    """Of the watchdog."""
    figures: list[tuple[str, ...]]
    """Of the exported model: name, value, interval, floor, ceiling."""
    frames: list[Frame]
    """Samples over time."""
    neighbours: Frame | None
    """Generated images beside the nearest real ones."""
    options: dict[str, str]
    """All of them."""
    command: str
    """Makes it again."""
    is_exact: bool
    """True where the command gives exactly these options."""

    @classmethod
    def of(cls, run: Run, name: str) -> "Summary":
        """Reads a run, all but its charts and pictures (`within`).

        name: what the page calls it, unlike the others (`training.runs.catalogue.labels_of`).
        """
        history, results = History.of(run.metrics), results_of(run.folder)
        command, is_exact = command_of(run)
        return cls(
            name=name,
            history=history,
            verdict=verdict_of(run, history, results),
            facts=_facts(run, history),
            charts=[],
            planes=drawings(results),
            curves=list(curves(results)),
            measured=_measured(results),
            events=events_of(run),
            figures=_figures(run),
            frames=[],
            neighbours=None,
            options={name: _told(value) for name, value in run.options.items()},
            command=command,
            is_exact=is_exact,
        )

    def within(self, run: Run, *, num_points: int, picture_bytes: int) -> "Summary":
        """The same with charts of so many points, and pictures of so many bytes together."""
        charts = charts_of(self.history, most=num_points)
        for chart in charts:
            chart["events"] = [[event["kimg"], event["failure"]] for event in self.events[:40]]
        folder = run.folder / "samples"
        neighbours = samples.picture(folder / NEIGHBOURS, picture_bytes // 5)
        left = picture_bytes - (len(neighbours.url) if neighbours else 0)
        return replace(
            self, charts=charts, frames=samples.frames(folder, left), neighbours=neighbours
        )


def _facts(run: Run, history: History) -> dict[str, str]:
    options, total = run.options, run.options.get("total_kimg")
    path = options.get("data.path")
    found = {
        "recipe": str(options.get("recipe", "?")),
        "data": str(path or options.get("data.dataset", "?")),
        "kimg": f"{run.cur_kimg:g} of {total}",
        "state": run.outcome,
        "network": str(options.get("network.family", "?")),
        "objective": str(options.get("objective", "?")),
        "regularisers": _told(options.get("regularizers", [])),
        "seed": str(options.get("seed", "?")),
    }
    if (speed := history.last("nimg_per_s")) is not None:
        found["images/s"] = f"{speed:,.0f}"
    if run.manifest is not None:
        found["images"] = f"{run.manifest.dataset.num_images:,}"
        found["data's fingerprint"] = run.manifest.dataset.fingerprint[:16]
        if run.manifest.source_commit:
            found["source"] = run.manifest.source_commit[:12]
    return found


def _measured(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What the spectrum says beside its drawing: the largest step, the kind of point, limits."""
    record = results.get("spectrum", {})
    limit = record.get("step_limit")
    said = [limit.get("says")] if isinstance(limit, dict) else []
    if isinstance(record.get("point"), str):
        said.append(f"At this point: {record['point']}.")
    limits = record.get("limits")
    said += limits if isinstance(limits, list) else []
    return [line for line in said if isinstance(line, str) and line]


def _figures(run: Run) -> list[tuple[str, ...]]:
    if run.manifest is None:
        return []
    found = []
    for metric in run.manifest.metrics:
        interval = metric.protocol.get("interval")
        told = " .. ".join(map(_number, interval)) if isinstance(interval, (list, tuple)) else "-"
        ends = (_number(metric.protocol.get(end)) for end in ("floor", "ceiling"))
        found.append((metric.name, _number(metric.value), told, *ends))
    return found


def _number(value: Any) -> str:
    is_finite = isinstance(value, (int, float)) and math.isfinite(value)
    return f"{value:.4g}" if is_finite else "-" if value is None else str(value)


def _told(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(_told, value)) or "none"
    if isinstance(value, dict):  # a regulariser, a schedule
        name, *rest = value.values()
        return f"{name}={'/'.join(map(str, rest))}" if rest else str(name)
    return "none" if value is None else str(value)
