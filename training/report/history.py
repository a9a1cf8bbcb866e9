"""The numbers of metrics.jsonl as columns, whatever lines the file has.

A line may lack a number, have a NaN or something else in its place, or come twice; there may be one
line or a hundred thousand. What a chart is given is thinned out so that no peak is lost.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.runs.catalogue import is_number

Column = list[float | None]
"""A value for each line; None where there is none, or none that can be drawn."""


@dataclass(frozen=True)
class History:
    """Ticks of a training, in the order of its images."""

    kimg: list[float]
    """Thousands of images shown."""
    columns: dict[str, Column]
    """By name, each as long as kimg."""
    broken: dict[str, float]
    """Columns whose last value is not finite, with the kimg from which on they are so."""

    @classmethod
    def of(cls, lines: Sequence[Mapping[str, Any]]) -> "History":
        """Reads the lines of a run's metrics. Of two with the same cur_nimg the last counts."""
        by_nimg = {line["cur_nimg"]: line for line in lines if is_number(line.get("cur_nimg"))}
        ordered = sorted(item for item in by_nimg.items() if math.isfinite(item[0]))
        kimg = [cur_nimg / 1000 for cur_nimg, _ in ordered]
        names = dict.fromkeys(
            name for _, line in ordered for name, value in line.items() if is_number(value)
        )
        columns, broken = {}, {}
        for name in names:
            values = [line.get(name) for _, line in ordered]
            columns[name] = [v if is_number(v) and math.isfinite(v) else None for v in values]
            given = [(k, v) for k, v in zip(kimg, values, strict=True) if is_number(v)]
            tail = list(itertools.takewhile(lambda pair: not math.isfinite(pair[1]), given[::-1]))
            if tail:
                broken[name] = tail[-1][0]
        return cls(kimg, columns, broken)

    def named(self, prefix: str) -> list[str]:
        """The columns whose names begin so."""
        return [name for name in self.columns if name.startswith(prefix)]

    def known(self, name: str) -> list[tuple[float, float]]:
        """(kimg, value) of each line that has a finite value."""
        values = self.columns.get(name, [None] * len(self.kimg))
        return [(k, v) for k, v in zip(self.kimg, values, strict=True) if v is not None]

    def last(self, name: str) -> float | None:
        """The last finite value."""
        return next((v for v in reversed(self.columns.get(name, [])) if v is not None), None)


def thinned(
    x: Sequence[float], columns: Sequence[Column], most: int
) -> tuple[list[float], list[Column]]:
    """Leaves about `most` points: of each stretch the smallest and the largest of each column.

    Columns share their x. Both extremes of a stretch stand within it, which is narrower than a
    pixel of a chart that shows all of it.
    """
    num = len(x)
    if num <= most:
        return list(x), [list(column) for column in columns]
    num_stretches = max(most // 2, 1)
    edges = [round(i * num / num_stretches) for i in range(num_stretches + 1)]
    places: list[float] = []
    kept: list[Column] = [[] for _ in columns]
    for start, end in itertools.pairwise(edges):
        if start == end:
            continue
        places += [x[start], x[end - 1]]
        for column, out in zip(columns, kept, strict=True):
            out += _extremes(column[start:end])
    return places, kept


def _extremes(values: Column) -> Column:
    """The two extremes in the order in which they come."""
    known = [(value, index) for index, value in enumerate(values) if value is not None]
    if not known:
        return [None, None]
    low, high = min(known), max(known)
    return [low[0], high[0]] if low[1] <= high[1] else [high[0], low[0]]
