"""Finds a loss or gradient that is not finite, before it reaches the weights.

On an accelerator asking for a value stops the pipeline, so nothing is asked there: `tripped` is a
number on the device, which fused Adam takes as its `found_inf` and then updates nothing. It stays
up, so every later update is a no-op too, until the loop asks at the next tick.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Trip:
    """What was not finite, and when."""

    terms: tuple[str, ...]
    """Names of losses and gradients."""
    cur_nimg: int
    """Images seen before the round that it happened in."""


class Guard:
    """Looks at every step's scalars."""

    def __init__(self, device: torch.device, *, cur_nimg: int, round_nimg: int) -> None:
        """cur_nimg: images seen before the first round that is looked at. round_nimg: in each."""
        self.tripped = torch.zeros((), device=device)
        self._num_rounds = 0
        self._num_bad = torch.zeros((), device=device)
        self._asks = device.type == "cpu"
        self._bad: dict[tuple[str, ...], Tensor] = {}
        self._cur_nimg = cur_nimg
        self._round_nimg = round_nimg

    def inspect(self, names: tuple[str, ...], values: Tensor) -> None:
        """Raises the flag if a value is not finite, without waiting for the device.

        names: of the values. values: [len(names)] float32.
        """
        if self._asks and all(map(math.isfinite, values.tolist())):
            return
        bad = values.isfinite().logical_not_()
        bad = bad.logical_and_(self.tripped == 0)  # what follows the first trip is no news
        if names in self._bad:
            self._bad[names].logical_or_(bad)
        else:
            self._bad[names] = bad
        self.tripped = torch.maximum(self.tripped, bad.any().to(self.tripped.dtype))

    def end_round(self) -> None:
        """Counts the rounds, and those from the trip on."""
        self._num_rounds += 1
        self._num_bad += self.tripped

    def trip(self) -> Trip | None:
        """What tripped it, None if nothing did. Waits for the device."""
        if not self.tripped:
            return None
        terms = tuple(
            name
            for names, bad in self._bad.items()
            for name, is_bad in zip(names, bad.tolist(), strict=True)
            if is_bad
        )
        num_good = self._num_rounds - int(self._num_bad)
        return Trip(terms=terms, cur_nimg=self._cur_nimg + num_good * self._round_nimg)
