"""SIGTERM (Kubernetes evicts) and SIGINT (Ctrl-C): the run ends where nothing is lost."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class InterruptedRun(Exception):  # noqa: N818 - not an error: somebody asked for it
    """A signal came where the run can end at once, as what it would lose is on the disk."""


class Interruption:
    """Remembers a signal. Inside `deferred` the run asks for it; elsewhere it ends at once."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._is_deferred = False

    @contextlib.contextmanager
    def handled(self) -> Iterator["Interruption"]:
        """Takes the signals over until the end of the block."""
        old = {number: signal.signal(number, self._receive) for number in SIGNALS}
        try:
            yield self
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Within the block a signal is only remembered."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        if not self._is_deferred:
            raise InterruptedRun
