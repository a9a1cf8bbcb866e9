"""Distances between rows of features, in blocks: memory stays bounded whatever their number."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_BLOCK_VALUES = 2**22  # 32 MiB of float64


def shifted(
    real: npt.NDArray[np.floating], fake: npt.NDArray[np.floating]
) -> tuple[Floats, Floats]:
    """Both as float64 less real's mean: nearer to zero, sums and distances lose less."""
    mean = np.asarray(real, dtype=np.float64).mean(axis=0)
    return real - mean, fake - mean


def blocks(num_rows: int, num_columns: int) -> Iterator[slice]:
    """Slices of rows, each of which makes a block of bounded size with num_columns columns."""
    step = max(1, _BLOCK_VALUES // max(num_columns, 1))
    for start in range(0, num_rows, step):
        yield slice(start, min(start + step, num_rows))


def squared_distances(
    a: npt.NDArray[Any], b: npt.NDArray[Any]
) -> Iterator[tuple[slice, npt.NDArray[Any]]]:
    """|a_i - b_j|^2 a block of rows of `a` at a time: (rows, [len(rows), len(b)]).

    Exactly 0 on the diagonal where `b` is `a`; elsewhere |a|^2 + |b|^2 - 2 a b, cut off at 0.
    """
    norms_a = np.einsum("ij,ij->i", a, a)
    norms_b = np.einsum("ij,ij->i", b, b)
    for rows in blocks(len(a), len(b)):
        block = a[rows] @ b.T
        block *= -2
        block += norms_a[rows, None]
        block += norms_b
        np.maximum(block, 0, out=block)
        if a is b:
            block[np.arange(len(block)), np.arange(rows.start, rows.stop)] = 0
        yield rows, block


def squared_radii(features: npt.NDArray[Any], nearest_k: int) -> Floats:
    """Squared distance of each row to its nearest_k-th nearest other row, [N]."""
    radii = np.empty(len(features))
    for rows, block in squared_distances(features, features):
        radii[rows] = np.partition(block, nearest_k, axis=1)[:, nearest_k]
    return radii


def nearest(
    queries: npt.NDArray[Any], references: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.int64], Floats]:
    """Index of each query's nearest reference, and the squared distance, exactly 0 for a copy."""
    index = np.empty(len(queries), dtype=np.int64)
    for rows, block in squared_distances(queries, references):
        index[rows] = block.argmin(axis=1)
    return index, _paired(queries, references[index])


def nearest_other(rows: npt.NDArray[Any], chosen: npt.NDArray[np.int64]) -> Floats:
    """Squared distance of the chosen rows, by index, to the nearest row that is another."""
    index = np.empty(len(chosen), dtype=np.int64)
    for part, block in squared_distances(rows[chosen], rows):
        block[np.arange(len(block)), chosen[part]] = np.inf
        index[part] = block.argmin(axis=1)
    return _paired(rows[chosen], rows[index])


def _paired(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> Floats:
    """|a_i - b_i|^2, [N], not through a difference of large sums."""
    squared = np.empty(len(a))
    for rows in blocks(len(a), a.shape[1]):
        squared[rows] = ((a[rows] - b[rows]) ** 2).sum(axis=1)
    return squared
