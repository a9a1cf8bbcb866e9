"""Runs coroutines on an event loop in a thread of its own, for callers that can't await.

Only an event loop can end a request at a given time whatever it is doing: the time-out of a socket
starts anew with each byte. The design is that of fsspec's asynchronous file systems.
"""

import asyncio
import contextlib
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

Params = ParamSpec("Params")
Result = TypeVar("Result")


class Background:
    """One thread with an event loop, for any number of callers; it starts at the first call."""

    def __init__(self, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """close: runs last on the loop, also where the owner forgets to call `end`."""
        self._close = close
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ended = False

    def run(
        self,
        function: Callable[Params, Coroutine[Any, Any, Result]],
        *args: Params.args,
        **kwargs: Params.kwargs,
    ) -> Result:
        """Calls an asynchronous function and waits for its result.

        Raises:
            RuntimeError: `end` was called, or the process forked since the loop started.
        """
        loop = self._running()
        future = asyncio.run_coroutine_threadsafe(function(*args, **kwargs), loop)
        try:
            return future.result()
        finally:
            future.cancel()  # the caller was interrupted: end the request too

    def end(self) -> None:
        """Ends the thread, if it ever started."""
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
                    args=(self._loop, self._close),
                    name="saddlepoint-client",
                    daemon=True,
                )
                self._thread.start()
                weakref.finalize(self, _stop, self._loop)
            elif self._thread is None or not self._thread.is_alive():
                # A fork copies the loop but not the thread: nothing would ever run on it.
                raise RuntimeError(
                    "the process forked after this client's first request; make one in each process"
                )
            return self._loop


def _serve(loop: asyncio.AbstractEventLoop, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
    # A function, not a method: a reference to the Background would keep its finalizer from running.
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.get_loop().run_forever()
        runner.run(close())


def _stop(loop: asyncio.AbstractEventLoop) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(loop.stop)
