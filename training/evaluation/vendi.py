"""Vendi score (Friedman and Dieng 2023): how many different images there effectively are.

Knows arrays, not where they are from.
"""

import numpy as np
import numpy.typing as npt

from training.evaluation.interval import Estimate, Resampling, two_sample

Floats = npt.NDArray[np.float64]


def vendi(features: npt.NDArray[np.floating], resampling: Resampling | None = None) -> Estimate:
    """Exp of the entropy of the eigenvalues of K / n, K the cosines between features [N, d].

    1 where all are alike, at most min(N, d). The N x N kernel is never made: with rows of length 1,
    X X^T / n and the d x d matrix X^T X / n have the same eigenvalues but for zeros. Features that
    share a large mean all look alike to a cosine: take it off first.
    """
    rows = np.asarray(features, dtype=np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows / np.where(norms > 0, norms, 1)

    def score(weights: Floats, _unused: Floats) -> float:
        values = np.linalg.eigvalsh((rows * weights[:, None]).T @ rows / weights.sum())
        values = values[values > 0]
        values = values / values.sum()
        return float(np.exp(-(values * np.log(values)).sum()))

    return two_sample(score, len(rows), 1, resampling or Resampling(), least=1.0)
