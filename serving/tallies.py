"""What an HTTP process counts while it answers: in plain memory, written out some times a second.

A metric that several processes share lies in a mapped file, and each of its updates costs about a
microsecond; a request has ten of them, and is answered in less than a hundred microseconds. So
requests count in lists and numbers, which cost a tenth, and `flush` adds what has come together to
the shared metrics: FLUSH_S after the first count at the latest, before every scrape of this
process, and at its end. For the event loop's thread alone.
"""

import asyncio
import functools
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from prometheus_client import Counter, Histogram

FLUSH_S = 0.1


class Count:
    """Stands before a counter."""

    __slots__ = ("_counter", "pending")

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self.pending = 0

    def flush(self) -> None:
        """Adds to the counter what came since the last time."""
        if self.pending:
            self._counter.inc(self.pending)
            self.pending = 0


class Spread:
    """Stands before a histogram."""

    __slots__ = ("_bounds", "_counts", "_histogram", "_sum")

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        # The histogram's own bounds, +Inf last. It has no public way to observe many values at
        # once; a test compares with observing them one by one.
        self._bounds: list[float] = histogram._upper_bounds
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Counts a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def flush(self) -> None:
        """Adds to the histogram what came since the last time."""
        if not any(self._counts):
            return
        for index, count in enumerate(self._counts):
            if count:
                self._histogram._buckets[index].inc(count)
                self._counts[index] = 0
        self._histogram._sum.inc(self._sum)
        self._sum = 0.0


class Tallies:
    """All of them, by metric and label values."""

    def __init__(self, on_flush: Callable[[], None] = lambda: None) -> None:
        """on_flush sets the gauges: it is called before every flush."""
        self._on_flush = on_flush
        self._tallies: list[Count | Spread] = []
        self._timer: asyncio.TimerHandle | None = None
        self.count = functools.cache(self._new_count)
        self.spread = functools.cache(self._new_spread)

    def touch(self) -> None:
        """Something was counted: it is written out soon."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)

    def flush(self) -> None:
        """Writes everything out."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._on_flush()
        for tally in self._tallies:
            tally.flush()

    def _new_count(self, counter: Counter, *labels: Any) -> Count:
        count = Count(counter.labels(*labels) if labels else counter)
        self._tallies.append(count)
        return count

    def _new_spread(self, histogram: Histogram, *labels: Any) -> Spread:
        spread = Spread(histogram.labels(*labels) if labels else histogram)
        self._tallies.append(spread)
        return spread
