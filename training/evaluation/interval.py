"""How far a figure would fall on another draw of the same size: bootstrap intervals (Efron 1979).

Knows no measure: a figure comes with what it gives on resampled rows.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure and the interval that 95% of its resamples fall into; none where none were made."""

    value: float
    interval: tuple[float, float] | None = None


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
        figure: of weights [num_real] and [num_fake], each summing to its length.
        num_real: rows of the reference.
        num_fake: rows of the sample.
        resampling: how often.
        least: what the figure can't be below.
    """
    value = figure(np.ones(num_real), np.ones(num_fake))
    pairs = zip(resampling.weights(num_real, 1), resampling.weights(num_fake, 2), strict=True)
    return centred(value, np.array([figure(real, fake) for real, fake in pairs]), least=least)


def centred(value: float, draws: Floats, *, least: float = -math.inf) -> Estimate:
    """A figure with the percentile interval of its resamples [R], laid around it.

    A resample holds some rows twice, so that figures with a bias of order 1/n come out shifted.
    The interval tells their spread, not that bias, which the floor of the same size shows.
    """
    if not len(draws):
        return Estimate(value=value)
    around = np.maximum(draws - draws.mean() + value, least)
    return Estimate(value=value, interval=_percentiles(around))


def _percentiles(draws: Floats) -> tuple[float, float] | None:
    if not len(draws):
        return None
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)
