"""Signals that end a run: what it would lose is saved, and the next start goes on from there.

SIGTERM comes from a pod's eviction, SIGINT from Ctrl-C, SIGHUP from a terminal that is closed, and
SIGUSR1 from Slurm, ahead of its time limit. Python calls signal handlers between two of its own
instructions, which an operation of torch can put off for minutes. So a thread, which the
interpreter wakes at once, says that the signal was seen, and ends the process at a second one.
"""

import atexit
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1")
SIGNALS = tuple(signal.Signals[name] for name in NAMES if name in signal.Signals.__members__)
ENOUGH_S = 10.0
"""How long the process may go on after a signal where nothing is left to be saved: an operation
may never come back to Python."""

_POLL_S = 0.25
_CLOSED = b"\0"  # no signal has this number
_ECHO_S = 1.0  # a terminal that closes, and systemd, send two signals that mean one
_LAUNCHER_ECHO_S = 5.0  # torchrun passes on what the terminal sent to its processes already


class InterruptedRun(BaseException):
    """A signal ends the run; everything that it would lose is on the disk.

    It is no Exception, so that nothing that expects failures takes it for one.
    """


class Interruption:
    """Handles the signals that end a run.

    Inside `deferred` a signal is only remembered, and the training checks `signal` where it can
    save its state. Elsewhere the handler raises InterruptedRun at once. Code that the signal met
    may lose that exception, in a finaliser for instance; `check` raises it again.
    """

    def __init__(self, *, is_restarted: bool = False) -> None:
        """is_restarted: something starts the run again until it exits with 0."""
        self.signal: signal.Signals | None = None
        self._is_restarted = is_restarted
        self._is_deferred = False
        self._first: tuple[signal.Signals, float] | None = None

    @property
    def exit_code(self) -> int:
        """Of a process that saved its state: 128 plus the signal's number if it is restarted."""
        first = self._first[0] if self._first is not None else self.signal
        return 128 + first if self._is_restarted and first is not None else 0

    @contextlib.contextmanager
    def handled(self) -> Iterator["Interruption"]:
        """Within the block the signals come here; afterwards the old handlers are back."""
        # A signal while the interpreter shuts down would make a failure of what has succeeded.
        atexit.unregister(_ignore)
        atexit.register(_ignore)
        old = {}
        try:
            for number in SIGNALS:
                if not _is_ignored_hangup(number):
                    old[number] = signal.signal(number, self._receive)
            with _Watch(self):
                yield self
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Within the block a signal is only remembered in `signal`."""
        before, self._is_deferred = self._is_deferred, True
        try:
            yield
        finally:
            self._is_deferred = before

    def check(self) -> None:
        """Raises InterruptedRun if a signal has come."""
        if self.signal is not None:
            raise InterruptedRun

    def seen(self, number: signal.Signals, now: float) -> str | None:
        """Takes note of a signal, in the watching thread.

        now: seconds, of the monotonic clock.

        Returns:
            What to say of it; None for a second signal that ends the process.
        """
        if self._first is None:
            self._first = (number, now)
            if self._is_deferred:
                return f"{number.name}: stopping after this step; once more: at once, unsaved"
            return f"{number.name}: stopping"
        first, since = self._first
        if "LOCAL_RANK" in os.environ:
            return "" if now - since < _LAUNCHER_ECHO_S else None
        again = number is first and number in (signal.SIGINT, signal.SIGTERM)
        return None if again or now - since >= _ECHO_S else ""

    @property
    def is_seen(self) -> bool:
        """True where a signal has come, whether the main thread knows of it or not."""
        return self._first is not None

    @property
    def is_ending(self) -> bool:
        """True where a signal has come and nothing is left to be saved."""
        return self._first is not None and not self._is_deferred

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:  # a second one must not disturb what the first one began
            return
        self.signal = signal.Signals(number)
        if not self._is_deferred:
            raise InterruptedRun


class _Watch:
    """The thread that the interpreter wakes at each signal, whatever the main thread does."""

    def __init__(self, interruption: Interruption) -> None:
        self._interruption = interruption
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="signals", daemon=True)

    def __enter__(self) -> None:
        self._old = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._old)
        with contextlib.suppress(OSError):  # full of signals: it ends the process then
            self._writer.send(_CLOSED)
        self._thread.join()
        self._reader.close()
        self._writer.close()

    def _run(self) -> None:
        ending_since: float | None = None
        while True:
            now = time.monotonic()
            if not self._interruption.is_ending:
                ending_since = None
            elif ending_since is None:
                ending_since = now
            elif now - ending_since > ENOUGH_S:
                os._exit(self._interruption.exit_code)
            self._reader.settimeout(_POLL_S if self._interruption.is_seen else None)
            try:
                numbers = self._reader.recv(64)
            except TimeoutError:
                continue
            for number in numbers:
                if number == _CLOSED[0]:
                    return
                if number in SIGNALS:
                    self._tell(signal.Signals(number))

    def _tell(self, number: signal.Signals) -> None:
        text = self._interruption.seen(number, time.monotonic())
        if text is None:
            _say(f"{number.name} again: ended at once; the last checkpoint is the newest")
            os._exit(128 + number)
        if text:
            _say(text)


def _is_ignored_hangup(number: signal.Signals) -> bool:
    return number.name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN


def _ignore() -> None:
    for number in SIGNALS:
        with contextlib.suppress(ValueError):  # not in the main thread
            signal.signal(number, signal.SIG_IGN)


def _say(text: str) -> None:
    """Writes a line to stderr, which may be gone with its terminal."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(text, file=sys.stderr, flush=True)
