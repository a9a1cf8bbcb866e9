"""Signals: what each process of a server does with them, from its first moment to its last.

SIGTERM, SIGINT and SIGQUIT end the server in order, a second one at once. SIGHUP has the files read
again that may change. Others that would end a process by default, and that somebody might send by
mistake, are ignored by all processes.

Forked and spawned processes are born with the former held back, until they have handlers of their
own: none is lost, and none kills a process that is just starting.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker

from serving.notice import Notice

_STRAY = (
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF),
    *(signal.SIGIO, signal.SIGPWR),
)
_STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_HELD = frozenset({*_STOP, signal.SIGHUP})
_HANGUP_S = 2.0


def ignore_stray() -> None:
    """Ignores what nobody should send; children inherit that."""
    for number in _STRAY:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Holds signals back in this thread, and in processes that it starts meanwhile."""
    # When multiprocessing starts its resource tracker, it lets SIGINT and SIGTERM come again,
    # whatever was held before. From here on it is there, so no process is born without the mask.
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    try:
        yield
    finally:
        release()


def release() -> None:
    """Lets signals come that were held back."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)


def leave_to_parent(*numbers: int) -> None:
    """Ignores signals that a terminal sends to all processes of a server: its first one decides."""
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


class Orders:
    """What the first process was told by signals; made before anything else is done."""

    def __init__(self) -> None:
        self.stop = Notice()
        """Given when the server is to end."""
        self.told_by: int | None = None
        """The signal that said so."""
        self.end_at_once: Callable[[], None] = lambda: None
        """Called before the process ends at a second signal."""
        self._pid = os.getpid()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._watched_until = 0.0
        # Who starts it with nohup wants it to outlive the terminal.
        self._ends_with_terminal = (
            signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and _has_terminal()
        )

    def listen(self) -> None:
        """Takes signals from now on."""
        ignore_stray()
        for number in _STOP:
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_hangup)

    def fileno(self) -> int:
        """Readable when files are to be read again."""
        return self._reader

    def take_hangups(self) -> bool:
        """True where files are to be read again; once for each time."""
        # The kernel sends the signal a moment before the terminal is gone.
        if time.monotonic() < self._watched_until and not _has_terminal():
            self._watched_until = 0.0
            if self.told_by is None:  # else it would be a second signal
                self._on_stop(signal.SIGTERM, None)
            return False
        try:
            return bool(os.read(self._reader, 4096))
        except BlockingIOError:
            return False

    def _on_stop(self, number: int, frame: object) -> None:
        if os.getpid() != self._pid:  # forked processes inherit the handler until they set theirs
            return
        if self.told_by is None:
            self.told_by = number
            self.stop.set()
            return
        self.end_at_once()
        os._exit(128 + number)

    def _on_hangup(self, number: int, frame: object) -> None:
        if os.getpid() != self._pid:
            return
        if self._ends_with_terminal and not _has_terminal():
            self._on_stop(signal.SIGTERM, frame)
            return
        if self._ends_with_terminal:
            self._watched_until = time.monotonic() + _HANGUP_S
        with contextlib.suppress(BlockingIOError):
            os.write(self._writer, b"x")


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK))
    except OSError:
        return False
    return True
