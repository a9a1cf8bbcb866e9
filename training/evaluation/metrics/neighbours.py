"""Distances between rows of features, computed in blocks so that memory stays bounded."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_BLOCK_VALUES = 2**22  # 32 MiB of float64


def shifted(
    real: npt.NDArray[np.floating], fake: npt.NDArray[np.floating]
) -> tuple[Floats, Floats]:
    """Both as float64 less the mean of real: near zero, sums and distances are more accurate."""
    mean = np.asarray(real, dtype=np.float64).mean(axis=0)
    return real - mean, fake - mean


def blocks(num_rows: int, num_columns: int) -> Iterator[slice]:
    """Slices of rows that, with num_columns columns, make blocks of at most 32 MiB."""
    step = max(1, _BLOCK_VALUES // max(num_columns, 1))
    for start in range(0, num_rows, step):
        yield slice(start, min(start + step, num_rows))


def squared_distances(
    a: npt.NDArray[Any], b: npt.NDArray[Any]
) -> Iterator[tuple[slice, npt.NDArray[Any]]]:
    """|a_i - b_j|^2 for a block of rows of `a` at a time.

    They are computed as |a|^2 + |b|^2 - 2 a b, and set to 0 where rounding makes them negative.
    Where `b` is `a` the diagonal is exactly 0.

    Yields:
        The slice of rows, and their distances [len(rows), len(b)].
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
    # Index nearest_k of the sorted distances, as index 0 is the row itself.
    radii = np.empty(len(features))
    for rows, block in squared_distances(features, features):
        radii[rows] = np.partition(block, nearest_k, axis=1)[:, nearest_k]
    return radii


def nearest(
    queries: npt.NDArray[Any], references: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.int64], Floats]:
    """Index of each query's nearest reference [N], and the squared distance [N], 0 for a copy."""
    index = np.empty(len(queries), dtype=np.int64)
    for rows, block in squared_distances(queries, references):
        index[rows] = block.argmin(axis=1)
    return index, _paired(queries, references[index])


def nearest_other(rows: npt.NDArray[Any], chosen: npt.NDArray[np.int64]) -> Floats:
    """Squared distance of each chosen row to its nearest other row, [len(chosen)].

    rows: [N, d]. chosen: indices of rows.
    """
    index = np.empty(len(chosen), dtype=np.int64)
    for part, block in squared_distances(rows[chosen], rows):
        block[np.arange(len(block)), chosen[part]] = np.inf
        index[part] = block.argmin(axis=1)
    return _paired(rows[chosen], rows[index])


def _paired(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> Floats:
    """|a_i - b_i|^2, [N], from the differences themselves, so that equal rows give exactly 0."""
    squared = np.empty(len(a))
    for rows in blocks(len(a), a.shape[1]):
        squared[rows] = ((a[rows] - b[rows]) ** 2).sum(axis=1)
    return squared
