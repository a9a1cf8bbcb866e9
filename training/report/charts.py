"""Which charts a report has, what is in each, and how to read it.

A chart is a dictionary of JSON types that `web/report.js` draws: title, read (how to read it), x
and its label, series with their values, and whether the scale is logarithmic. This module knows no
HTML.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.report.history import Column, History, thinned

Chart = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A chart over the images shown."""

    title: str
    read: str
    """How to read it, in a line."""
    names: tuple[str, ...] = ()
    """Columns, in this order."""
    prefixes: tuple[str, ...] = ()
    """And those that begin so."""
    is_log: bool = False
    """True for a logarithmic scale, where all values are above 0."""
    whole: bool = False
    """True for shares, whose scale is 0 to 1."""


PANELS = (
    Panel(
        title="Distance from the real images",
        read="Lower is better. Dashed: what held-out real images reach, and noise.",
        names=("quality.frechet_distance", "quality.frechet_distance.floor",
               "quality.frechet_distance.ceiling"),
        is_log=True,
    ),
    Panel(
        title="Precision, recall, coverage",
        read="Higher is better: precision, images that look real; recall and coverage, parts of "
        "the data that are made.",
        names=("quality.precision", "quality.recall", "quality.coverage",
               "quality.coverage.floor"),
        whole=True,
    ),
    Panel(
        title="Points on the mixture",
        read="Higher is better: the share of points within 3 sigma of a Gaussian.",
        names=("quality.good_points", "quality.good_points.floor"),
        whole=True,
    ),
    Panel(
        title="Gaussians found",
        read="Each that has a good point counts; dashed: all that there are.",
        names=("quality.gaussians", "quality.gaussians.floor"),
    ),
    Panel(
        title="Loss of D by its terms",
        read="Which term moves D; a loss tells who is ahead, and not how good the images are.",
        prefixes=("loss_D.",),
    ),
    Panel(
        title="Loss of G by its terms",
        read="A G loss that only grows while D's falls: D is winning.",
        prefixes=("loss_G.",),
    ),
    Panel(
        title="Raw scores of D",
        read="D's mean output before any squashing: a gap that grows without end is a D that gets "
        "away from G.",
        names=("scores.real", "scores.fake"),
    ),
    Panel(
        title="D's judgement",
        read="Mean probability of being real: the nearer the two, the less D can tell them apart.",
        names=("D_real", "D_fake"),
        whole=True,
    ),
    Panel(
        title="Gradient norms",
        read="Steady is well; a climb over decades is divergence, G's fall to 0 is saturation.",
        names=("gradient_G", "gradient_D"),
        is_log=True,
    ),
    Panel(
        title="Signs of failures",
        read="spread near 0 or twins near 1: collapse. Near 1 sure: saturation, r_t: D overfits, "
        "swing: oscillation, copied: memorised images, held_out_gap: D knows its images by heart.",
        names=("watch.spread", "watch.twins", "watch.sure", "watch.r_t", "watch.swing",
               "watch.copied", "watch.held_out_gap"),
        whole=True,
    ),
    Panel(
        title="Sizes of weights and logits",
        read="Slow growth is usual; a bend upwards comes before a divergence.",
        names=("watch.weights_G", "watch.weights_D", "watch.logits", "watch.logit_spread"),
        is_log=True,
    ),
    Panel(
        title="Size of the field",
        read="0 for both players at an equilibrium; averaged weights nearer to one than the last "
        "are what the average is for.",
        names=("stability.speed_G", "stability.speed_D", "stability.speed_average_G"),
        is_log=True,
    ),
    Panel(
        title="Angle of the field with the way so far",
        read="-1: the field leads on along the way since the last sounding; 0: across it, as where "
        "players circle; 1: it leads back.",
        names=("stability.path_cosine",),
    ),
    Panel(
        title="Condition number of dG/dz",
        read="A climb over decades: some directions of the latent change nothing any more.",
        names=("stability.conditioning",),
        is_log=True,
    ),
    Panel(
        title="Adaptive augmentation",
        read="The probability follows how far D overfits.",
        names=("augment_p", "r_t"),
    ),
    Panel(title="Speed", read="Images a second, by the tick.", names=("nimg_per_s",)),
)  # fmt: skip
_COMPARED = (
    "quality.frechet_distance", "quality.coverage", "quality.good_points", "loss_D.adversarial",
    "loss_G.adversarial", "gradient_G", "gradient_D", "watch.spread", "watch.r_t",
)  # fmt: skip
_ENDS = (".floor", ".ceiling")
_KNOWN_ELSEWHERE = ("tick", "cur_nimg", "watch.margin", "watch.slope", "watch.cur_nimg")


def charts_of(history: History, *, most: int) -> list[Chart]:
    """The charts of one run that have anything to show. most: points of a series, about."""
    found, drawn = [], set(_KNOWN_ELSEWHERE)
    for panel in PANELS:
        names = [name for name in panel.names if name in history.columns]
        names += [n for prefix in panel.prefixes for n in history.named(prefix) if n not in names]
        drawn.update(names)
        if any(history.known(name) for name in names):
            found.append(_chart(panel, history, names, most))
    rest = [n for n in history.columns if n not in drawn and not n.startswith("quality.")]
    if any(history.known(name) for name in rest):
        panel = Panel(title="Other numbers", read="Whatever else the run has written at its ticks.")
        found.append(_chart(panel, history, rest, most))
    return found


def compared(runs: Mapping[str, History], *, most: int) -> Iterator[Chart]:
    """Yields a chart for each number that tells runs apart, with a line for each run."""
    panels = {name: panel for panel in PANELS for name in panel.names}
    for name in _COMPARED:
        known = {run: history.known(name) for run, history in runs.items()}
        if sum(map(bool, known.values())) < 1:
            continue
        panel = panels.get(name)
        x = sorted({kimg for points in known.values() for kimg, _ in points})
        columns: list[Column] = []
        for points in known.values():
            at = dict(points)
            columns.append([at.get(kimg) for kimg in x])
        places, values = thinned(x, columns, most)
        series = [
            {"label": run, "y": _rounded(column)} for run, column in zip(known, values, strict=True)
        ]
        yield {
            "title": name,
            "read": panel.read if panel else "One line a run.",
            "x": _rounded(places),
            "xLabel": "kimg",
            "series": series,
            "log": bool(panel and panel.is_log) and _positive(columns),
            "whole": bool(panel and panel.whole),
            "gaps": True,
        }


def curve(
    *,
    title: str,
    read: str,
    x: Sequence[float],
    x_label: str,
    series: Sequence[Mapping[str, Any]],
    log_x: bool = False,
    log: bool = False,
) -> Chart:
    """A chart over something else than images.

    series: label and y each, and points where it has no line.
    """
    drawn = [{**each, "y": _rounded(each["y"])} for each in series]
    return {
        "title": title,
        "read": read,
        "x": _rounded(x),
        "xLabel": x_label,
        "series": drawn,
        "logX": log_x,
        "log": log,
    }


def _chart(panel: Panel, history: History, names: Sequence[str], most: int) -> Chart:
    columns = [history.columns[name] for name in names]
    # Looks come at some ticks only: a line that skips the others is thinned as it is.
    rows = [i for i in range(len(history.kimg)) if any(c[i] is not None for c in columns)]
    x, values = thinned(
        [history.kimg[i] for i in rows], [[c[i] for i in rows] for c in columns], most
    )
    series = []
    for name, column in zip(names, values, strict=True):
        each: dict[str, Any] = {"label": _short(name), "y": _rounded(column)}
        if name.endswith(_ENDS):
            each["dash"] = True
        series.append(each)
    return {
        "title": panel.title,
        "read": panel.read,
        "x": _rounded(x),
        "xLabel": "kimg",
        "series": series,
        "log": panel.is_log and _positive(values),
        "whole": panel.whole,
        "overTime": True,
    }


def _short(name: str) -> str:
    """A column's name without what its chart says already."""
    for prefix in ("quality.", "watch.", "loss_D.", "loss_G.", "stability."):
        name = name.removeprefix(prefix)
    return name.replace(".floor", ", real images").replace(".ceiling", ", noise")


def _positive(columns: Sequence[Column]) -> bool:
    return all(value is None or value > 0 for column in columns for value in column)


def _rounded(values: Sequence[float | None]) -> Column:
    """To six digits, which a chart can't show: the page is smaller by half."""
    return [None if v is None or not math.isfinite(v) else float(f"{v:.6g}") for v in values]
