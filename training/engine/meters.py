"""Means of the scalars of steps, summed on their own device, so that no step waits for a value."""

from collections import deque

import torch
from torch import Tensor


class Meters:
    """Sums of named scalars; lazy terms are averaged over the steps in which they were computed."""

    def __init__(self, num_kept: int = 0) -> None:
        """num_kept: calls of `add` whose scalars are kept one by one, for `series`."""
        self._kept: deque[tuple[tuple[str, ...], Tensor]] = deque(maxlen=num_kept)
        self._sums: dict[tuple[str, ...], Tensor] = {}
        self._counts: dict[tuple[str, ...], int] = {}

    def add(self, names: tuple[str, ...], values: Tensor) -> None:
        """Adds one step's scalars. values: [len(names)] float32."""
        if names in self._sums:
            self._sums[names].add_(values)
        else:
            self._sums[names] = values.to(torch.float64, copy=True)  # float32 would lose late terms
        self._counts[names] = self._counts.get(names, 0) + 1
        self._kept.append((names, values))  # not copied, as nobody writes into it

    def means(self) -> dict[str, float]:
        """Returns each scalar's mean since the last reset. Waits for the device."""
        totals: dict[str, tuple[float, int]] = {}
        for names, sums in self._sums.items():
            for name, value in zip(names, sums.tolist(), strict=True):
                total, count = totals.get(name, (0.0, 0))
                totals[name] = total + value, count + self._counts[names]
        return {name: total / count for name, (total, count) in totals.items()}

    def series(self, name: str) -> list[float]:
        """Returns the scalar's values since the last reset, one by one. Waits for the device."""
        found = [values[names.index(name)] for names, values in self._kept if name in names]
        series: list[float] = torch.stack(found).tolist() if found else []
        return series

    def reset(self) -> None:
        """Clears all sums and series."""
        self._sums.clear()
        self._counts.clear()
        self._kept.clear()
