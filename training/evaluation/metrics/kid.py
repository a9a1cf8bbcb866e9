"""Kernel distance (Binkowski et al. 2018): the unbiased squared MMD under a cubic kernel.

Published KIDs are averages over subsets of 1,000, which saves time. This takes all pairs, in
blocks: the expectation is the same, the variance smaller, and there is no subset size to choose.
The figure is called kid with Inception's features and kernel_distance with others. This module
works on arrays from anywhere.
"""

import numpy as np
import numpy.typing as npt

from training.evaluation.metrics.bootstrap import Estimate, Resampling, normal_interval
from training.evaluation.metrics.neighbours import blocks

Floats = npt.NDArray[np.float64]


def kernel_distance(
    real: npt.NDArray[np.floating],
    fake: npt.NDArray[np.floating],
    resampling: Resampling | None = None,
) -> Estimate:
    """E k(r, r') + E k(f, f') - 2 E k(r, f) with k(x, y) = (x y / d + 1)^3, pairs r != r', f != f'.

    It is unbiased: for two samples of one distribution it is about 0, and negative half of the
    time.

    Args:
        real: features [N, d], N >= 2.
        fake: features [M, d], M >= 2.
        resampling: for the interval; no interval by default.
    """
    r, f = np.asarray(real, dtype=np.float64), np.asarray(fake, dtype=np.float64)
    resampling = resampling or Resampling()
    # All resamples' weights at once, the first all ones: each pair's kernel is computed only once.
    r_draws, f_draws = (
        list(resampling.weights(len(rows), stream)) for stream, rows in enumerate((r, f), 1)
    )
    r_without, f_without = (
        list(resampling.without(len(rows), stream)) for stream, rows in enumerate((r, f), 1)
    )
    r_all, f_all = np.ones(len(r)), np.ones(len(f))
    r_weights = np.stack([r_all, *r_draws, *r_without, *[r_all] * len(f_without)])
    f_weights = np.stack([f_all, *f_draws, *[f_all] * len(r_without), *f_without])
    values = (
        _within(r, r_weights) + _within(f, f_weights) - 2 * _between(r, r_weights, f, f_weights)
    )
    draws, without_real, without_fake = np.split(
        values[1:], [len(r_draws), len(r_draws) + len(r_without)]
    )
    return normal_interval(
        float(values[0]), draws=draws, without_real=without_real, without_fake=without_fake
    )


def _kernel(a: Floats, b: Floats) -> Floats:
    block = a @ b.T
    block /= a.shape[1]
    block += 1
    cubed: Floats = block * block
    cubed *= block
    return cubed


def _within(rows: Floats, weights: Floats) -> Floats:
    """Mean kernel over pairs of different rows, for each of R lines of weights [R, N]: [R].

    A row that was drawn twice makes no pair with itself, which keeps the mean unbiased.
    """
    total = np.zeros(len(weights))
    for part in blocks(len(rows), len(rows)):
        block = _kernel(rows[part], rows)
        block[np.arange(len(block)), np.arange(part.start, part.stop)] = 0
        total += ((weights[:, part] @ block) * weights).sum(axis=1)
    pairs = weights.sum(axis=1) ** 2 - (weights**2).sum(axis=1)
    mean: Floats = total / pairs
    return mean


def _between(a: Floats, a_weights: Floats, b: Floats, b_weights: Floats) -> Floats:
    """Mean kernel between rows of a and of b, for each of R lines of weights: [R]."""
    total = np.zeros(len(a_weights))
    for part in blocks(len(a), len(b)):
        total += ((a_weights[:, part] @ _kernel(a[part], b)) * b_weights).sum(axis=1)
    mean: Floats = total / (a_weights.sum(axis=1) * b_weights.sum(axis=1))
    return mean
