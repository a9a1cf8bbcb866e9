"""Loops that must go on: whatever one turn raises is said once, counted, and tried again.

A loop here is anything that a process does for as long as it lives: it watches the repository,
answers frames, runs batches, restarts workers. A failing turn must never be the last one. So every
exception is caught, foreign ones that derive from BaseException alone too; only the loop's own end
(cancellation, KeyboardInterrupt, SystemExit) passes. What is told about a failure, by the log and
by metrics, may fail as well (a full disk, no memory), and then is left out.
"""

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from serving.observability import metrics

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.2
LAST_PAUSE_S = 30.0
_MAX_TEXT = 2000

T = TypeVar("T")


class Loop:
    """One loop's failures: since when, what was said of them, how long to wait for the next try.

    Not for several threads at once: each has a Loop of its own, by the same name if they do the
    same.
    """

    def __init__(
        self, name: str, *, first_pause_s: float = FIRST_PAUSE_S, last_pause_s: float = LAST_PAUSE_S
    ) -> None:
        """name: as the metrics have it. The pause doubles from the first to the last."""
        self.name = name
        self.failing_since: float | None = None
        """Seconds since 1970; None while turns succeed."""
        self._first_pause_s, self._last_pause_s = first_pause_s, last_pause_s
        self._pause_s = first_pause_s
        self._said = ""
        self._num_failures = 0
        with quietly():
            metrics.LOOP_FAILURES.labels(name)  # there from the start, at 0

    def failed(self, error: BaseException) -> float:
        """A turn raised this; gives the seconds to wait before the next one. Never raises."""
        pause_s, self._pause_s = self._pause_s, min(self._pause_s * 2, self._last_pause_s)
        self._num_failures += 1
        first = self.failing_since is None
        if first:
            self.failing_since = time.time()
        with quietly():
            metrics.LOOP_FAILURES.labels(self.name).inc()
        with quietly():
            if first:
                metrics.LOOP_FAILING_SINCE.labels(self.name).set(self.failing_since or 0.0)
        with quietly():
            text = cause_of(error)
            if text != self._said:
                # The text alone is kept: a traceback would hold every array of its frames.
                self._said = text
                logger.error("%s failed, and is tried again: %s", self.name, text, exc_info=error)
        return pause_s

    def succeeded(self) -> None:
        """A turn went well. Never raises."""
        if self.failing_since is None:
            return
        lasted_s, num = time.time() - self.failing_since, self._num_failures
        self.failing_since, self._said, self._num_failures = None, "", 0
        self._pause_s = self._first_pause_s
        with quietly():
            metrics.LOOP_FAILING_SINCE.labels(self.name).set(math.inf)
        with quietly():
            logger.info("%s works again, after %d failures in %.1f s", self.name, num, lasted_s)

    async def run(
        self,
        turn: Callable[[], Awaitable[float | None]],
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Repeats a turn until cancelled.

        Args:
            turn: gives the seconds until the next one; None ends the loop.
            sleep: waits between turns; it may return early.
        """
        while True:
            try:
                pause_s = await turn()
            except BaseException as error:
                if ends(error):
                    raise
                pause_s = self.failed(error)
            else:
                self.succeeded()
                if pause_s is None:
                    return
            await sleep(pause_s)

    def run_in_thread(
        self, turn: Callable[[], bool], sleep: Callable[[float], object] = time.sleep
    ) -> None:
        """Repeats a turn, in the calling thread, until it gives False.

        sleep: waits between a failure and the next try; it may return early.
        """
        while True:
            try:
                going = turn()
            except BaseException as error:
                # In a thread nothing from outside asks it to end: all of it is the turn's own.
                pause_s = self.failed(error)
            else:
                self.succeeded()
                if not going:
                    return
                continue
            with quietly():
                sleep(pause_s)


class SaidOnce:
    """Which causes were logged lately: a bounded number, each again after a while."""

    def __init__(self, *, most: int = 256, again_s: float = 300.0) -> None:
        """most: causes that are remembered. again_s: after which one is said again."""
        self._most, self._again_s = most, again_s
        self._said: OrderedDict[object, float] = OrderedDict()
        self._lock = threading.Lock()

    def is_new(self, cause: object) -> bool:
        """True where this cause is to be said now."""
        now = time.monotonic()
        with self._lock:
            said = self._said.get(cause)
            if said is not None and now - said < self._again_s:
                return False
            self._said[cause] = now
            self._said.move_to_end(cause)
            while len(self._said) > self._most:
                self._said.popitem(last=False)
        return True


def ends(error: BaseException) -> bool:
    """True where an exception that a coroutine caught is its own end, and has to go on upwards.

    A CancelledError that nobody sent to this task comes from something that it waited for.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0
    return isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit)


def cause_of(error: BaseException) -> str:
    """Kind and text of an exception; of one that can't say what it is, its kind."""
    try:
        text = str(error)
    except BaseException:
        text = ""
    kind = type(error).__name__
    return f"{kind}: {text[:_MAX_TEXT]}" if text else kind


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Lets whatever goes wrong within be: for what is told about a failure."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
            raise


def in_thread(work: Callable[[], T], name: str) -> "asyncio.Future[T]":
    """Runs blocking work in a thread of its own, which a process that ends doesn't wait for.

    asyncio.to_thread has few threads and joins them at the end: one that storage holds up for ever
    would take a place among them, and then keep the process from ending.

    Raises:
        RuntimeError: no thread can be started.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:
            settle(loop, done, None, error)
        else:
            settle(loop, done, result, None)

    threading.Thread(target=run, name=name, daemon=True).start()
    return done


def settle(
    loop: asyncio.AbstractEventLoop,
    done: "asyncio.Future[T]",
    result: T | None,
    error: BaseException | None,
) -> None:
    """Ends a future from another thread; nothing happens where nobody waits any more."""

    def end() -> None:
        if done.done():
            return
        if error is None:
            done.set_result(result)  # type: ignore[arg-type]
        elif isinstance(error, StopIteration | KeyboardInterrupt | SystemExit):
            # A future takes no StopIteration, and the others would end the event loop.
            done.set_exception(RuntimeError(cause_of(error)))
        else:
            done.set_exception(error)

    with contextlib.suppress(RuntimeError):  # the event loop has ended
        loop.call_soon_threadsafe(end)
