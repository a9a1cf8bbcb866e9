"""Confidence intervals: how much a figure varies from one draw of samples to another.

The interval of a mean is the bootstrap's percentiles (Efron 1979). A distance is quadratic in its
samples' noise, and resampling adds as much noise again. For two sets of one distribution the
bootstrap's variance is therefore three times the figure's, and the jackknife's twice; for sets far
apart both are right. Twice the jackknife's variance less the bootstrap's is right in both cases
(after Efron and Stein 1981, who show the jackknife's excess for quadratic figures).

This module knows no measure: it takes a figure's values on resampled rows.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LEVEL = 0.95
NUM_GROUPS = 50  # the jackknife leaves out one of these at a time
_HALF_WIDTH = 1.959964  # LEVEL of a normal distribution lies within so many standard deviations


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure and its 95% interval."""

    value: float
    interval: tuple[float, float] | None = None
    """Lower and upper end; None where nothing was resampled."""
    details: dict[str, Any] = field(default_factory=dict)
    """Results to add to the figure's protocol."""


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """Draws resamples of rows, always the same for one seed."""

    num: int = 0
    """Number of resamples; 0 gives figures without an interval."""
    seed: int = 0

    def weights(self, num_rows: int, stream: int) -> Iterator[Floats]:
        """Bootstrap weights: how often each row was drawn in each of `num` resamples.

        Args:
            num_rows: rows of the sample.
            stream: different streams give independent draws.

        Yields:
            [num_rows] float64, with the sum num_rows.
        """
        rng = np.random.default_rng((self.seed, stream))
        even = np.full(num_rows, 1 / num_rows)
        for _ in range(self.num):
            yield rng.multinomial(num_rows, even).astype(np.float64)

    def without(self, num_rows: int, stream: int) -> Iterator[Floats]:
        """Jackknife weights: 1, and 0 for the rows of one group, a different group each time.

        Rows are put into NUM_GROUPS groups at random, or fewer where there are fewer rows or
        resamples. A single row gives nothing.

        Args:
            num_rows: rows of the sample.
            stream: different streams give independent groups.

        Yields:
            [num_rows] float64.
        """
        num_groups = min(NUM_GROUPS, self.num, num_rows)
        rng = np.random.default_rng((self.seed, stream))
        group = rng.permutation(num_rows) % max(num_groups, 1)
        for left_out in range(num_groups if num_rows > 1 else 0):
            yield (group != left_out).astype(np.float64)


def mean(values: npt.NDArray[np.generic], resampling: Resampling) -> Estimate:
    """The mean of values [N], with the bootstrap's percentile interval."""
    rows = np.asarray(values, dtype=np.float64)
    draws = [float(w @ rows) / len(rows) for w in resampling.weights(len(rows), 0)]
    return Estimate(value=float(rows.mean()), interval=_percentiles(np.array(draws)))


def two_sample(
    figure: Callable[[Floats, Floats], float],
    num_real: int,
    num_fake: int,
    resampling: Resampling,
    *,
    least: float = -math.inf,
) -> Estimate:
    """A figure of two samples, with an interval from resampling both.

    Args:
        figure: from weights [num_real] and [num_fake] of the rows to the figure.
        num_real: rows of the reference.
        num_fake: rows of the sample.
        resampling: draws the weights.
        least: smallest value that the figure can have.
    """
    all_real, all_fake = np.ones(num_real), np.ones(num_fake)
    value = figure(all_real, all_fake)
    pairs = zip(resampling.weights(num_real, 1), resampling.weights(num_fake, 2), strict=True)
    return normal_interval(
        value,
        draws=np.array([figure(real, fake) for real, fake in pairs]),
        without_real=np.array([figure(some, all_fake) for some in resampling.without(num_real, 1)]),
        without_fake=np.array([figure(all_real, some) for some in resampling.without(num_fake, 2)]),
        least=least,
    )


def normal_interval(
    value: float,
    *,
    draws: Floats,
    without_real: Floats,
    without_fake: Floats,
    least: float = -math.inf,
) -> Estimate:
    """A figure with a symmetric interval from its bootstrap and jackknife values.

    The interval shows the figure's spread, not its bias of order 1/n, which the floor shares.

    Args:
        value: the figure of all rows.
        draws: its values on bootstrap resamples, [R]; fewer than two give no interval.
        without_real: its values without one group of the reference, [G].
        without_fake: its values without one group of the sample, [G].
        least: smallest value that the figure can have.
    """
    if len(draws) < 2:
        return Estimate(value=value)
    bootstrap = float(draws.var(ddof=1))
    jackknife = sum(
        (len(some) - 1) * float(some.var()) for some in (without_real, without_fake) if len(some)
    )
    # The purely quadratic part, the least that the variance can be, is the difference of the two.
    variance = max(2 * jackknife - bootstrap, bootstrap - jackknife, 0.0)
    half = _HALF_WIDTH * math.sqrt(variance)
    return Estimate(value=value, interval=(max(least, value - half), value + half))


def _percentiles(draws: Floats) -> tuple[float, float] | None:
    if not len(draws):
        return None
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)
