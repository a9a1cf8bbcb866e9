"""Figures of a score that shall be high for what is unusual: AUROC, precision, false alarms.

Intervals are percentiles of the bootstrap (Efron 1979): usual and unusual test images are drawn
anew, each as many as there are, and the same draws serve all methods, so that differences between
methods have intervals, too. Rates have Wilson's intervals (1927): draws of a sample without any
alarm would have none either, and an interval without width. What a method learned and its
calibration stay as they are. This module knows no method.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.bundle.anomaly import Calibration

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]
NUM_RESAMPLES = 200
_PERCENTILES = (2.5, 97.5)
_CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What a method gave."""

    usual: Floats
    """[n], of test images that are usual; the higher, the more unusual."""
    unusual: Floats
    """[m], of those that aren't."""
    calibration: Floats | None
    """Of usual images that it didn't learn from; None where they aren't known."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure and its interval of 95%: of draws of test images, of a rate by Wilson."""

    value: float
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A method's figures."""

    auroc: Figure
    """Share of pairs of a usual and an unusual image that are in the right order."""
    average_precision: Figure
    """Mean precision over the unusual images; a score that knows nothing has their share."""
    false_alarms: Figure | None
    """Share of usual images whose p is at most alpha; None without calibration."""
    found: Figure | None
    """Share of unusual ones whose p is at most alpha."""
    behind: Figure | None
    """How far its AUROC is behind the best method's; None for the best one."""


def judge(methods: Mapping[str, Scores], *, alpha: float, seed: int = 0) -> dict[str, Judged]:
    """Figures of each method on the same test images.

    Args:
        methods: each with equally many usual and unusual images, in the same order.
        alpha: p from which down an image alarms.
        seed: of the resamples.
    """
    auroc = {name: _drawn(_auroc, each.usual, each.unusual, seed) for name, each in methods.items()}
    precision = {
        name: _drawn(_average_precision, each.usual, each.unusual, seed)
        for name, each in methods.items()
    }
    best = max(auroc, key=lambda name: auroc[name][0])
    found = {}
    for name, each in methods.items():
        false_alarms = detected = None
        if each.calibration is not None:
            scale = Calibration(np.sort(each.calibration))
            false_alarms = _rate(scale.p_values(each.usual) <= alpha)
            detected = _rate(scale.p_values(each.unusual) <= alpha)
        found[name] = Judged(
            auroc=_figure(auroc[name]),
            average_precision=_figure(precision[name]),
            false_alarms=false_alarms,
            found=detected,
            behind=None if name == best else _figure(auroc[best] - auroc[name]),
        )
    return found


def best_of(judged: Mapping[str, Judged]) -> str:
    """The method with the highest AUROC."""
    return next(name for name, each in judged.items() if each.behind is None)


def expected_false_alarms(num_calibration: int, alpha: float) -> float:
    """The rate of p <= alpha among usual images with so many calibration scores."""
    return int(alpha * (num_calibration + 1) + 1e-9) / (num_calibration + 1)


def _auroc(usual: Floats, unusual: Floats) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(*_labelled(usual, unusual)))


def _average_precision(usual: Floats, unusual: Floats) -> float:
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(*_labelled(usual, unusual)))


def _labelled(usual: Floats, unusual: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
    labels = np.repeat(np.array([0, 1], np.int64), (len(usual), len(unusual)))
    return labels, np.concatenate([usual, unusual])


def _drawn(measure: object, usual: Floats, unusual: Floats, seed: int) -> Floats:
    """The measure of all images, then of each resample: [1 + NUM_RESAMPLES]."""
    assert callable(measure)
    rng = np.random.default_rng(seed)
    values = [measure(usual, unusual)]
    for _ in range(NUM_RESAMPLES):
        rows = [rng.integers(len(each), size=len(each)) for each in (usual, unusual)]
        values.append(measure(usual[rows[0]], unusual[rows[1]]))
    return np.array(values)


def _rate(alarms: npt.NDArray[np.bool_]) -> Figure:
    """The share of alarms."""
    from scipy.stats import binomtest

    test = binomtest(int(alarms.sum()), len(alarms))
    low, high = test.proportion_ci(_CONFIDENCE, method="wilson")
    return Figure(value=float(alarms.mean()), interval=(float(low), float(high)))


def _figure(values: Floats) -> Figure:
    low, high = np.percentile(values[1:], _PERCENTILES)
    return Figure(value=float(values[0]), interval=(float(low), float(high)))
