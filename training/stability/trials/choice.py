"""Which weight trials speak for, and which they can't tell from it.

Draws differ by more than weights do, and all weights are played on the same draws: what a draw adds
to all of them is taken out, and what is left, pooled over the weights, is the error. A weight is as
good as the best where its mean lies within the margin of a one-sided test of their difference (t,
95%). This module knows no training.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from training.stability.trials.quality import WORST
from training.stability.trials.trial import Trial

_LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a set of trials says."""

    best: float
    """The weight with the best mean."""
    advice: float
    """The weight nearest to the present one that isn't worse than the best beyond the margin: what
    can't be told apart is no reason to go further."""
    alike: tuple[float, ...]
    """The weights that aren't worse, ascending; the best is one of them."""
    error: float
    """Standard error of a weight's mean, the draws' common part taken out; infinite where nothing
    was played twice."""
    margin: float
    """By so much a mean must be below the best one, to count as worse."""


def choose(trials: Iterable[Trial], present: float) -> Choice | None:
    """Chooses among the weights that were played on every draw; None where all diverged.

    trials: each weight on draws 0, 1 ... up to where it was dropped. present: the run's weight.
    """
    found = qualities(trials)
    num = max((len(each) for each in found.values()), default=0)
    whole = {
        weight: each
        for weight, each in found.items()
        if len(each) == num and all(map(math.isfinite, each))
    }
    if not whole:
        return None
    weights = sorted(whole)
    table = np.array([whole[weight] for weight in weights])  # [weights, draws]
    means = table.mean(1)
    best = int(means.argmax())
    error, margin = _error(table)
    alike = tuple(
        weight for weight, mean in zip(weights, means, strict=True) if mean >= means[best] - margin
    )
    return Choice(
        best=weights[best], advice=nearest(alike, present), alike=alike, error=error, margin=margin
    )


def nearest(weights: Sequence[float], present: float) -> float:
    """Returns the weight by the least factor from the present one.

    Without a penalty, or with 0 alone to choose from, it is the lightest.
    """
    positive = [weight for weight in weights if weight > 0]
    if not present or not positive:
        return min(weights)
    return min(positive, key=lambda weight: abs(math.log(weight / present)))


def qualities(trials: Iterable[Trial]) -> Mapping[float, Sequence[float]]:
    """Returns each weight's qualities in the order of the draws."""
    found: dict[float, list[float]] = {}
    for trial in sorted(trials, key=lambda trial: trial.draw):
        found.setdefault(trial.weight, []).append(trial.quality)
    return found


def ranked(trials: Iterable[Trial]) -> list[float]:
    """Returns the weights, the best mean first; those that diverged once are left out."""
    means = {weight: float(np.mean(each)) for weight, each in qualities(trials).items()}
    return sorted((w for w in means if means[w] > WORST), key=lambda weight: -means[weight])


def _error(table: np.ndarray) -> tuple[float, float]:
    """The standard error of a mean, and the margin of a difference. table: [weights, draws]."""
    num_weights, num_draws = table.shape
    freedom = (num_weights - 1) * (num_draws - 1)
    if not freedom:
        return math.inf, 0.0 if num_weights == 1 else math.inf
    rest = table - table.mean(1, keepdims=True) - table.mean(0, keepdims=True) + table.mean()
    error = math.sqrt(float((rest**2).sum()) / freedom / num_draws)
    return error, float(stats.t.ppf(_LEVEL, freedom)) * math.sqrt(2) * error
