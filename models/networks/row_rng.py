"""Randomness by rows: some rows of a batch draw what the whole batch draws there.

A batch may be computed in parts, one after the other or by several processes. A part then draws for
the whole batch from the same seed and keeps its own rows, so that the parts together are the batch.
Which rows are being computed is told from outside (`only`), as the seed is: both belong to torch's
global generator. Knows no network and no process.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Rows:
    """Every `num_parts`-th row of a batch, from row `part` on.

    Rows with a stride and not neighbours: the groups of the minibatch standard deviation, which
    have a stride too, are then the whole batch's.
    """

    part: int
    """Number of the part, from 0 on."""
    num_parts: int
    """Parts of the batch, all of one size."""
    total: int
    """Rows of the whole batch, a multiple of num_parts."""
    index: Tensor
    """The rows' numbers, [total / num_parts] int64 where they are computed. Compiled code takes
    them by these: with the part's number in it, it would be compiled anew for each part."""

    @classmethod
    def of_part(cls, part: int, num_parts: int, total: int, device: torch.device) -> "Rows":
        """The rows of a part."""
        return cls(part, num_parts, total, torch.arange(part, total, num_parts, device=device))

    def of(self, whole: Tensor) -> Tensor:
        """These rows of a tensor of the whole batch, [total, ...]."""
        return whole[self.part :: self.num_parts].contiguous()


_rows: Rows | None = None  # those that are being computed; None for all


@contextmanager
def only(rows: Rows | None) -> Iterator[None]:
    """Makes `per_row` draw for these rows inside the block; None for a whole batch."""
    global _rows
    before, _rows = _rows, rows
    try:
        yield
    finally:
        _rows = before


def per_row(draw: Callable[[int], Tensor], num: int) -> Tensor:
    """Draws a tensor with a row for each row that is being computed.

    Args:
        draw: given a number, draws that many rows, [num, ...], from a generator in the state that
            it has for the whole batch.
        num: rows that are wanted: those being computed, or a multiple, where several batches were
            put one after the other.
    """
    if _rows is None:
        return draw(num)
    # Drawn for the whole batch, so that the parts together have the numbers of one pass.
    repeats = num * _rows.num_parts // _rows.total
    whole = draw(repeats * _rows.total)
    size = whole.shape[1:]
    whole = whole.reshape(repeats, _rows.total, *size)
    # By index, as a slice by the part's number would be compiled anew for each part.
    if torch.compiler.is_compiling():
        return whole.index_select(1, _rows.index).reshape(num, *size)
    return whole[:, _rows.part :: _rows.num_parts].reshape(num, *size)
