"""Values of metrics in memory that all processes of the server read, each written by one of them.

Prometheus' client keeps the values of several processes in mapped files, and a disk that is full,
or a file that somebody cuts short, kills whoever counts. Here each process has a file in memory
(`serving.observability.segment`), whose pages are reserved before they are written. Where that
fails, the process counts for itself alone, says so, and tries again later.

What a dead process has counted is added to one account of the dead, so that counters never go
backwards; its gauges end with it. A number that is odd while that is being done lets readers look
again: nobody waits for a lock that a stopped process holds.
"""

import contextlib
import functools
import json
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from serving.observability.segment import Segment

logger = logging.getLogger(__name__)

_AGAIN_S = 10.0
_MAX_LOOKS = 20


class Key(NamedTuple):
    """Which value of which metric."""

    kind: str
    mode: str
    """Of a gauge: how the values of several processes become one."""
    metric: str
    sample: str
    labels: tuple[tuple[str, str], ...]


class Entry(NamedTuple):
    """A value of one process; pid is 0 of those that are dead."""

    pid: int
    key: Key
    value: float


class SharedValue:
    """Takes the place of prometheus_client's own value: the same methods."""

    _multiprocess = True

    def __init__(
        self,
        typ: str,
        metric_name: str,
        name: str,
        labelnames: Sequence[str],
        labelvalues: Sequence[str],
        help_text: str,
        multiprocess_mode: str = "",
        **kwargs: Any,
    ) -> None:
        """Called by prometheus_client for each sample of each metric."""
        labels = [list(pair) for pair in zip(labelnames, labelvalues, strict=True)]
        self.key = json.dumps([typ, multiprocess_mode, metric_name, name, labels]).encode("ascii")
        self.value = 0.0
        self.start: int | None = None
        """Where the value is in this process's segment; None where it isn't there."""
        with _own.changing():
            _own.add(self)

    def inc(self, amount: float) -> None:
        """Adds."""
        with _own.lock:
            self.value += amount
            shown = _own.write(self)
        if not shown:
            _own.show_hidden()

    def set(self, value: float, timestamp: float | None = None) -> None:
        """Sets."""
        with _own.lock:
            self.value = value
            shown = _own.write(self)
        if not shown:
            _own.show_hidden()

    def get(self) -> float:
        """What this process has counted."""
        return self.value

    def set_exemplar(self, exemplar: Any) -> None:
        """Exemplars are not kept."""

    def get_exemplar(self) -> None:
        """Exemplars are not kept."""


class OwnValues:
    """The values of this process, and the segment that shows them to the others."""

    def __init__(self) -> None:
        # Reentrant: what the garbage collector ends in the midst of it may count.
        self.lock = threading.RLock()
        self.values: list[SharedValue] = []
        self.segment: Segment | None = None
        self._hidden_since: float | None = None
        self._again = 0.0

    def add(self, value: SharedValue) -> None:
        """A new value; with the lock held."""
        self.values.append(value)
        self._show([value])

    def write(self, value: SharedValue) -> bool:
        """A value has changed; with the lock held. False where it should be shown and isn't."""
        if value.start is None or self.segment is None:
            return self.segment is None
        self.segment.put(value.start, value.value)
        return True

    def attach(self, segment: Segment) -> None:
        """Shows what this process has counted, and will count, in a segment."""
        with self.changing():
            segment.begin(os.getpid())
            self.segment, self._hidden_since, self._again = segment, None, 0.0
            for value in self.values:
                value.start = None
            self._show(self.values)

    def show_hidden(self) -> None:
        """Tries again, if the last time was long ago."""
        if time.monotonic() >= self._again:
            with self.changing():
                self._show([value for value in self.values if value.start is None])

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Holds the lock, and logs afterwards where values begin or cease to be hidden.

        Never while it is held: who writes a log counts the lines that are lost.
        """
        with self.lock:
            before = self._hidden_since
            yield
            after = self._hidden_since
        if before is None and after is not None:
            logger.error("there is no memory for metrics: others don't see all of this process's")
        elif before is not None and after is None:
            logger.info("all metrics of this process are seen again")

    def after_fork(self) -> None:
        """The child begins at nothing; another thread may have held the lock."""
        self.lock = threading.RLock()
        self.segment = None
        for value in self.values:
            value.value, value.start = 0.0, None

    def _show(self, values: Iterable[SharedValue]) -> None:
        if self.segment is None or time.monotonic() < self._again:
            return
        try:
            for value in values:
                value.start = self.segment.append(value.key, value.value)
        except OSError:
            self._again = time.monotonic() + _AGAIN_S
            self._hidden_since = self._hidden_since or time.monotonic()
        else:
            if all(value.start is not None for value in self.values):
                self._hidden_since = None


_own = OwnValues()
os.register_at_fork(after_in_child=_own.after_fork)


class SharedMetrics:
    """The segments of all processes of a server; made by the first one, before there are others."""

    def __init__(self, num_http: int, num_workers: int) -> None:
        """Raises OSError where there is no memory to be had."""
        self._dead = Segment("dead")
        self._main = Segment("main")
        self._http = [Segment(f"http-{index}") for index in range(num_http)]
        self._workers = [Segment(f"worker-{index}") for index in range(num_workers)]

    def attach_main(self) -> None:
        """This process is the first one."""
        self._dead.begin(0)
        _own.attach(self._main)

    def attach_http(self, index: int) -> None:
        """This process speaks HTTP."""
        _own.attach(self._http[index])

    def attach_worker(self, index: int) -> None:
        """This process is a worker."""
        _own.attach(self._workers[index])

    def forget(self, pid: int) -> None:
        """Drops the gauges of a process that is dead, and keeps what it counted.

        For the first process's supervisor alone.
        """
        for segment in (*self._http, *self._workers):
            if segment.pid() == pid:
                self._dead.count_change()
                try:
                    self._bury(segment)
                except OSError as error:
                    logger.error("what process %d had counted is lost in part: %s", pid, error)
                finally:
                    segment.clear()
                    self._dead.count_change()

    def _bury(self, segment: Segment) -> None:
        totals = {key: value for key, value, _ in segment.read() if _key(key).kind != "gauge"}
        for key, value, start in self._dead.read():
            if key in totals:
                self._dead.put(start, value + totals.pop(key))
        for key, value in totals.items():
            self._dead.append(key, value)

    def entries(self) -> list[Entry]:
        """All values of all processes."""
        for _ in range(_MAX_LOOKS):
            before = self._dead.num_changes()
            entries = self._read()
            if before % 2 == 0 and self._dead.num_changes() == before:
                break
            time.sleep(0.001)
        return entries

    def _read(self) -> list[Entry]:
        entries = own_entries()
        for segment in (self._dead, self._main, *self._http, *self._workers):
            if segment is not _own.segment:
                pid = segment.pid()
                entries += [Entry(pid, _key(key), value) for key, value, _ in segment.read()]
        return entries


def own_entries() -> list[Entry]:
    """The values of this process: also those for which there was no memory to show them."""
    with _own.lock:
        return [Entry(os.getpid(), _key(value.key), value.value) for value in _own.values]


@contextlib.contextmanager
def lock_if_free() -> Iterator[bool]:
    """Holds the lock of this process's values, if no other thread does.

    For code that must not wait for it: it holds a lock that the other thread may be waiting for.
    """
    lock = _own.lock
    held = lock.acquire(blocking=False)
    try:
        yield held
    finally:
        if held:
            lock.release()


@functools.lru_cache(maxsize=1 << 14)
def _key(data: bytes) -> Key:
    kind, mode, metric, sample, labels = json.loads(data)
    return Key(kind, mode, metric, sample, tuple(sorted((name, value) for name, value in labels)))
