"""How far a figure would fall on another draw of the same size.

Of a mean: the bootstrap's percentiles (Efron 1979). Of a distance, which is quadratic in its
samples' noise, resampling adds as much noise again as there is: with two sets of one distribution
the bootstrap's variance is three times the figure's, the jackknife's twice, and far apart both are
right. Twice the jackknife's less the bootstrap's is right in both cases (after Efron and Stein
1981, who show the jackknife's excess for quadratic figures).

Knows no measure: a figure comes with what it gives on resampled rows.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LEVEL = 0.95
NUM_GROUPS = 50  # that the jackknife leaves out, one after the other
_HALF_WIDTH = 1.959964  # standard deviations that hold LEVEL of a normal distribution


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure and its 95% interval; none where nothing was resampled."""

    value: float
    interval: tuple[float, float] | None = None
    told: dict[str, Any] = field(default_factory=dict)
    """What its protocol should say of how it came about."""


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How many resamples are drawn, and from which seed; 0 for figures without an interval."""

    num: int = 0
    seed: int = 0

    def weights(self, num_rows: int, stream: int) -> Iterator[Floats]:
        """`num` times how often each of num_rows rows was drawn, [num_rows] with that sum.

        stream: another one gives independent draws.
        """
        rng = np.random.default_rng((self.seed, stream))
        even = np.full(num_rows, 1 / num_rows)
        for _ in range(self.num):
            yield rng.multinomial(num_rows, even).astype(np.float64)

    def without(self, num_rows: int, stream: int) -> Iterator[Floats]:
        """Ones, and zeros for one group of the rows after the other; none of a single row.

        NUM_GROUPS groups, no more than resamples or rows, which are dealt out at random.
        """
        num_groups = min(NUM_GROUPS, self.num, num_rows)
        rng = np.random.default_rng((self.seed, stream))
        group = rng.permutation(num_rows) % max(num_groups, 1)
        for left_out in range(num_groups if num_rows > 1 else 0):
            yield (group != left_out).astype(np.float64)


def mean(values: npt.NDArray[np.generic], resampling: Resampling) -> Estimate:
    """The mean of one value a row, with its percentile interval."""
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
    """A figure of two weighted samples; both are resampled.

    Args:
        figure: of weights [num_real] and [num_fake].
        num_real: rows of the reference.
        num_fake: rows of the sample.
        resampling: how often.
        least: what the figure can't be below.
    """
    all_real, all_fake = np.ones(num_real), np.ones(num_fake)
    value = figure(all_real, all_fake)
    pairs = zip(resampling.weights(num_real, 1), resampling.weights(num_fake, 2), strict=True)
    return around(
        value,
        draws=np.array([figure(real, fake) for real, fake in pairs]),
        without_real=np.array([figure(some, all_fake) for some in resampling.without(num_real, 1)]),
        without_fake=np.array([figure(all_real, some) for some in resampling.without(num_fake, 2)]),
        least=least,
    )


def around(
    value: float,
    *,
    draws: Floats,
    without_real: Floats,
    without_fake: Floats,
    least: float = -math.inf,
) -> Estimate:
    """A figure with an interval of so many standard deviations on either side.

    It tells the figure's spread, not its bias of order 1/n, which the floor of the same size shows.

    Args:
        value: of all rows.
        draws: of resamples [R]; none for no interval.
        without_real: of the samples less one group of the reference [G].
        without_fake: less one group of the sample [G].
        least: what the figure can't be below.
    """
    if len(draws) < 2:
        return Estimate(value=value)
    bootstrap = float(draws.var(ddof=1))
    jackknife = sum(
        (len(some) - 1) * float(some.var()) for some in (without_real, without_fake) if len(some)
    )
    # What is quadratic alone, the least that the variance can be, is the difference of the two.
    variance = max(2 * jackknife - bootstrap, bootstrap - jackknife, 0.0)
    half = _HALF_WIDTH * math.sqrt(variance)
    return Estimate(value=value, interval=(max(least, value - half), value + half))


def _percentiles(draws: Floats) -> tuple[float, float] | None:
    if not len(draws):
        return None
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)
