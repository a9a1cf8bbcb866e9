"""Tells a worker that computes for long from one that is stuck, by what its runs use and answer.

A run may take long, and be healthy: it uses processors. Runs that use none and come to no end are
stuck, in a lock that nobody lets go for example. Where that can't be told apart, as on a GPU or in
a loop without an end, a run is stuck that lasts longer than anybody can wait for its images.

Time is counted in the turns of the event loop, a turn as a second at most: while the whole machine
was stopped nothing was late.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

MAX_TURN_S = 1.0
"""The most that a turn counts for."""
MAX_SLOW_S = 1800.0
"""How long a step of loading a model may hold a device up; TensorRT builds one for minutes."""
_IDLE_SHARE = 0.05  # of one processor: what an event loop takes that has nothing to do
_SLOWER = 8.0  # than alone on all processors: other runs and other processes take theirs


class Progress:
    """The runs of one worker. `begin` and `end` are for any thread, `check` for one."""

    def __init__(
        self,
        *,
        timeout_s: float,
        run_limit_s: float,
        uses_processors: bool,
        clock: Callable[[], float] = time.monotonic,
        processors: Callable[[], float] = time.process_time,
    ) -> None:
        """Sets up.

        Args:
            timeout_s: how long there may be runs that end nowhere and use no processor.
            run_limit_s: how much longer than expected one run may last.
            uses_processors: whether a healthy run uses this machine's processors all the time.
            clock: seconds.
            processors: seconds that this process has used them.
        """
        self._timeout_s, self._run_limit_s = timeout_s, run_limit_s
        self._uses_processors = uses_processors
        self._clock, self._processors = clock, processors
        self._lock = threading.Lock()
        self._runs: dict[int, float] = {}  # seconds over what each may last at least, in turns
        self._slow: dict[int, float] = {}  # seconds that each has lasted, in turns
        self._next = 0
        self._num_ended = 0
        self._last = (clock(), processors(), 0)
        self._idle_s = 0.0

    def begin(self, expected_s: float) -> int:
        """A run begins that may last so long and longer; gives the number that ends it."""
        with self._lock:
            self._next += 1
            self._runs[self._next] = -_SLOWER * expected_s
            return self._next

    def end(self, number: int) -> None:
        """A run has ended, however."""
        with self._lock:
            self._runs.pop(number, None)
            self._num_ended += 1

    @contextlib.contextmanager
    def slow(self) -> Iterator[None]:
        """Something is under way that every run waits for, and that may take minutes.

        Time doesn't count for runs meanwhile. It is stuck itself after MAX_SLOW_S.
        """
        with self._lock:
            self._next += 1
            number = self._next
            self._slow[number] = 0.0
        try:
            yield
        finally:
            with self._lock:
                del self._slow[number]
                self._num_ended += 1

    def check(self) -> str | None:
        """A turn of the event loop; why the worker is stuck, where it is."""
        now, used_s = self._clock(), self._processors()
        then, used_then_s, num_ended_then = self._last
        turn_s = min(now - then, MAX_TURN_S)
        with self._lock:
            num_ended = self._num_ended
            self._slow = {number: s + turn_s for number, s in self._slow.items()}
            slow_s = max(self._slow.values(), default=None)
            if slow_s is None:
                self._runs = {number: s + turn_s for number, s in self._runs.items()}
            over_s = max(self._runs.values()) if self._runs else None
        self._last = now, used_s, num_ended
        computes = used_s - used_then_s > _IDLE_SHARE * (now - then)
        if slow_s is not None and slow_s > MAX_SLOW_S:
            return f"a step of loading a model has not ended for {slow_s:.0f} s"
        if over_s is not None and slow_s is None and num_ended == num_ended_then and not computes:
            self._idle_s += turn_s
        else:
            self._idle_s = 0.0
        if self._uses_processors and self._idle_s > self._timeout_s:
            return f"its runs have neither ended nor computed for {self._idle_s:.0f} s"
        if over_s is not None and over_s > self._run_limit_s:
            return f"a run has lasted {over_s:.0f} s longer than it should; nobody waits any more"
        return None
