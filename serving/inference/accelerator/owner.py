"""The thread that owns a device: it alone opens sessions there, runs them, and lets them go.

A CUDA graph belongs to the thread that captured it, and is captured in CUDA's global mode: a call
of another thread that allocates meanwhile breaks the capture (error 900, ONNX Runtime's issue
18806). So whoever needs the device hands his work to this thread. Work is done in the order in
which it comes. A load hands it over piece by piece, so that runs come between.
"""

import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from serving.inference.accelerator.cuda_errors import lost_device
from serving.observability.loops import quietly

T = TypeVar("T")


class DeviceOwner:
    """One such thread, which lives as long as the process; for any thread to call."""

    def __init__(
        self,
        on_lost: Callable[[str], None],
        *,
        slow: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        """Starts the thread.

        Args:
            on_lost: ends this process, as it can't use the device any more; told why.
            slow: is entered around work that may take minutes.
        """
        self._on_lost = on_lost
        self._slow = slow
        self._work: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any] | None]] = (
            queue.SimpleQueue()
        )
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self._thread.start()

    def call(self, work: Callable[[], T]) -> T:
        """Has work done there, and waits for its result.

        Raises:
            BaseException: what the work raised.
        """
        if threading.current_thread() is self._thread:
            return self._watched(work)
        future: Future[T] = Future()
        self._work.put((work, future))
        try:
            return future.result()
        finally:
            # An error's traceback holds this frame: the future in it would hold the error, and both
            # whatever lies on the device.
            del future, work

    def call_slow(self, work: Callable[[], T]) -> T:
        """As `call`, for work that may take minutes."""

        def slowly() -> T:
            with self._slow():
                return work()

        return self.call(slowly)

    def post(self, work: Callable[[], object]) -> None:
        """Has work done there some time, and doesn't wait; its errors are nobody's."""
        self._work.put((work, None))

    def _run(self) -> None:
        while True:
            work, future = self._work.get()
            try:
                result = self._watched(work)
            except BaseException as error:  # foreign code may raise anything
                if future is not None:
                    future.set_exception(error)
            else:
                if future is not None:
                    future.set_result(result)
                del result  # before the next wait: it may be the last reference to a session
            del work, future

    def _watched(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except BaseException as error:
            with quietly():
                reason = lost_device(error)
                if reason is not None:
                    self._on_lost(f"the device is lost ({reason})")
            raise


class NoOwner:
    """Stands for an owner where the caller's own thread is the only one there is."""

    def call(self, work: Callable[[], T]) -> T:
        """Does the work here."""
        return work()

    def call_slow(self, work: Callable[[], T]) -> T:
        """Does the work here."""
        return work()

    def post(self, work: Callable[[], object]) -> None:
        """Does the work here."""
        work()


Owner = DeviceOwner | NoOwner
