"""Finds a loss or gradient that is not finite, before it reaches the weights.

On an accelerator, asking for a value stops the pipeline, so nothing is asked there: `found_inf` is
a number on the device, which fused Adam reads and then updates nothing. It stays 1, so every later
update does nothing either, until the loop asks at the next tick.
"""

import math

import torch
from torch import Tensor

from training.errors import NonFinite


class Guard:
    """Inspects the scalars of every step."""

    def __init__(self, device: torch.device, *, cur_nimg: int, round_nimg: int) -> None:
        """cur_nimg: images seen before the first round that is looked at. round_nimg: in each."""
        self.found_inf = torch.zeros((), device=device)
        self._num_rounds = 0
        self._num_bad = torch.zeros((), device=device)
        self._asks = device.type == "cpu"
        self._bad: dict[tuple[str, ...], Tensor] = {}
        self._cur_nimg = cur_nimg
        self._round_nimg = round_nimg

    def inspect(self, names: tuple[str, ...], values: Tensor) -> None:
        """Sets `found_inf` to 1 if a value is not finite, without waiting for the device.

        names: of the values. values: [len(names)] float32.
        """
        # On the CPU a look at a few numbers costs less than the operations below.
        if self._asks and all(map(math.isfinite, values.tolist())):
            return
        bad = values.isfinite().logical_not_()
        bad = bad.logical_and_(self.found_inf == 0)  # later ones follow from the first
        if names in self._bad:
            self._bad[names].logical_or_(bad)
        else:
            self._bad[names] = bad
        self.found_inf = torch.maximum(self.found_inf, bad.any().to(self.found_inf.dtype))

    def end_round(self) -> None:
        """Counts the rounds, and those since `found_inf` is 1."""
        self._num_rounds += 1
        self._num_bad += self.found_inf

    def non_finite(self) -> NonFinite | None:
        """Returns the first values that were not finite; None if all were. Waits for the device."""
        if not self.found_inf:
            return None
        terms = tuple(
            name
            for names, bad in self._bad.items()
            for name, is_bad in zip(names, bad.tolist(), strict=True)
            if is_bad
        )
        num_good = self._num_rounds - int(self._num_bad)
        return NonFinite(terms=terms, cur_nimg=self._cur_nimg + num_good * self._round_nimg)
