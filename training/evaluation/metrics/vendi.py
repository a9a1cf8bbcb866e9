"""Vendi score (Friedman and Dieng 2023): the effective number of different samples."""

import numpy as np
import numpy.typing as npt

from training.evaluation.metrics.bootstrap import Estimate, Resampling, two_sample

Floats = npt.NDArray[np.float64]


def vendi(features: npt.NDArray[np.floating], resampling: Resampling | None = None) -> Estimate:
    """Exp of the entropy of the eigenvalues of K / n, where K are the cosines between the rows.

    The score is 1 where all rows are equal and at most min(N, d). For rows of length 1 the matrices
    X X^T / n and X^T X / n have the same eigenvalues apart from zeros, so that only the smaller
    d x d matrix is made. Subtract a large common mean first: otherwise all cosines are near 1.

    Args:
        features: [N, d].
        resampling: for the interval; no interval by default.
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
