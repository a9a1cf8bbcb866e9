"""Counters and histograms that count in plain memory and are written out ten times a second.

A metric that several processes share lies in a mapped file, and each update of it costs about a
microsecond. A request has ten of them, and is answered in less than a hundred microseconds. So
requests count in lists and numbers, which costs a tenth of that. `flush` adds these counts to the
shared metrics: FLUSH_S after the first count at the latest, before every scrape of this process,
and at its end. Only the event loop's thread may use this module.
"""

import asyncio
import contextlib
import functools
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from prometheus_client import Counter, Histogram

from serving.observability.loops import Loop, ends

FLUSH_S = 0.1
_LAST_PAUSE_S = 5.0  # the longest between two tries where metrics can't be written

PROMETHEUS_VERSION = "0.26.0"
"""The release that the list was checked against."""
PROMETHEUS_INTERNALS: dict[str, str | None] = {
    "prometheus_client.metrics.Histogram._buckets": None,
    "prometheus_client.metrics.Histogram._sum": None,
    "prometheus_client.metrics.Histogram._upper_bounds": None,
    "prometheus_client.values.MutexValue.__init__": "self, typ, metric_name, name, labelnames, "
    "labelvalues, help_text, **kwargs",
    "prometheus_client.values.MutexValue.inc": "self, amount",
    "prometheus_client.values.MutexValue.set": "self, value, timestamp",
    "prometheus_client.values.MutexValue.get": "self",
    "prometheus_client.values.MutexValue.set_exemplar": "self, exemplar",
    "prometheus_client.values.MutexValue.get_exemplar": "self",
}
"""Members of prometheus_client that are used here and in `shared_values` without being documented,
by their path, with a method's parameters, or None for an attribute of instances."""


class BufferedCounter:
    """Counts for a Prometheus counter until it is flushed."""

    __slots__ = ("_counter", "pending")

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self.pending = 0

    def flush(self) -> None:
        """Adds what was counted since the last flush to the counter."""
        if self.pending:
            self._counter.inc(self.pending)
            self.pending = 0


class BufferedHistogram:
    """Observes for a Prometheus histogram until it is flushed."""

    __slots__ = ("_bounds", "_counts", "_histogram", "_sum")

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        # The histogram's own bounds, +Inf last. It has no public way to observe many values at
        # once; a test compares with observing them one by one.
        self._bounds: list[float] = histogram._upper_bounds
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Counts a value in its bucket."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def flush(self) -> None:
        """Adds what was observed since the last flush to the histogram."""
        if not any(self._counts):
            return
        for index, count in enumerate(self._counts):
            if count:
                self._histogram._buckets[index].inc(count)
                self._counts[index] = 0
        self._histogram._sum.inc(self._sum)
        self._sum = 0.0


class BufferedMetrics:
    """The buffered metrics of a process, by metric and label values."""

    def __init__(self, on_flush: Callable[[], None] = lambda: None) -> None:
        """on_flush: called before every flush, to set gauges."""
        self._on_flush = on_flush
        self._loop = Loop("metrics", last_pause_s=_LAST_PAUSE_S)
        self._buffered: list[BufferedCounter | BufferedHistogram] = []
        self._timer: asyncio.TimerHandle | None = None
        self.counter = functools.cache(self._new_counter)
        self.histogram = functools.cache(self._new_histogram)

    def schedule_flush(self) -> None:
        """Flushes within FLUSH_S; to be called after counting."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)

    def flush(self) -> None:
        """Adds all counts to the shared metrics; what can't be added now is kept for later."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        errors = []
        for write in (self._on_flush, *(each.flush for each in self._buffered)):
            try:
                write()
            except BaseException as error:
                if ends(error):
                    raise
                errors.append(error)
        if not errors:
            self._loop.succeeded()
            return
        pause_s = self._loop.failed(errors[0])
        with contextlib.suppress(RuntimeError):  # outside of an event loop nobody tries again
            self._timer = asyncio.get_running_loop().call_later(pause_s, self.flush)

    def _new_counter(self, counter: Counter, *labels: Any) -> BufferedCounter:
        buffered = BufferedCounter(counter.labels(*labels) if labels else counter)
        self._buffered.append(buffered)
        return buffered

    def _new_histogram(self, histogram: Histogram, *labels: Any) -> BufferedHistogram:
        buffered = BufferedHistogram(histogram.labels(*labels) if labels else histogram)
        self._buffered.append(buffered)
        return buffered
