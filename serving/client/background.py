"""An event loop in a thread of its own, so that callers who wait can use what is awaited.

Only a loop can end a request at a point in time, whatever it is doing: a socket's own time-out
begins anew with each byte. The idea is fsspec's.
"""

import asyncio
import contextlib
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class Background:
    """Runs coroutines for any number of threads; its own starts with the first of them."""

    def __init__(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """last: to be run at the end, also of a client that nobody closes."""
        self._last = last
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ended = False

    def run(self, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Waits for what a coroutine gives; who breaks off the wait breaks off the coroutine.

        Raises:
            RuntimeError: it has ended, or the process forked since it began.
        """
        loop = self._running()
        future = asyncio.run_coroutine_threadsafe(work(), loop)
        try:
            return future.result()
        finally:
            future.cancel()

    def end(self) -> None:
        """Ends the thread, if it ever began."""
        with self._lock:
            self._ended = True
            loop, thread = self._loop, self._thread
        if loop is None or thread is None or not thread.is_alive():
            return
        _stop(loop)
        thread.join()

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._ended:
                raise RuntimeError("this client is closed; make another")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_serve,
                    args=(self._loop, self._last),
                    name="saddlepoint-client",
                    daemon=True,
                )
                self._thread.start()
                weakref.finalize(self, _stop, self._loop)
            elif self._thread is None or not self._thread.is_alive():
                raise RuntimeError(
                    "the process forked after this client's first request; make one in each process"
                )
            return self._loop


def _serve(loop: asyncio.AbstractEventLoop, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """The thread: doesn't know the client, so that it can be forgotten meanwhile."""
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.get_loop().run_forever()
        runner.run(last())


def _stop(loop: asyncio.AbstractEventLoop) -> None:
    with contextlib.suppress(RuntimeError):  # it is closed
        loop.call_soon_threadsafe(loop.stop)
