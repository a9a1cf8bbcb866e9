"""The inference workers of a server, as its parent process sees them: alive, hanging or dead.

A worker sends heartbeats to whoever is connected to its socket, and the parent is. One that sends
none for a while hangs, however it came to that: stopped, swapped out, in a lock without an end. It
is killed, and treated as one that died: started again, after a pause where that comes often.

Time is counted in turns of the supervisor, a turn as `MAX_TURN_S` at most. Where the whole machine
stood still, or had no processor to give, nobody is late.
"""

import contextlib
import logging
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

from serving.inference.progress import MAX_TURN_S
from serving.observability import metrics
from serving.observability.loops import Loop, quietly

logger = logging.getLogger(__name__)

TURN_S = 0.5
"""The longest time between two looks at the workers."""
START_S = 120.0
"""How long a worker may take until it listens: it imports much, and sees what devices there are."""
_FIRST_PAUSE_S = 0.2
_LAST_PAUSE_S = 30.0
_RETRY_S = 2.0  # between two tries to start a process
_STABLE_S = 60.0  # a worker that lived this long starts again without a pause
_READ_BYTES = 1 << 16
_MAX_READS = 64  # in one turn: announcements come too


class InferenceWorker:
    """One of them, and those that take its place. For the supervisor's thread alone."""

    def __init__(
        self,
        process: BaseProcess,
        path: Path,
        *,
        start: Callable[[], BaseProcess],
        forget: Callable[[int], None],
        timeout_s: float,
    ) -> None:
        """Takes over a process that runs.

        Args:
            process: it.
            path: the socket on which it will listen.
            start: starts another one in its place.
            forget: told of one that died, by its number: its metrics are another's from then on.
            timeout_s: how long it may give no sign of life.
        """
        self.process = process
        self._path = path
        self._start = start
        self._forget = forget
        self._timeout_s = timeout_s
        self._loop = Loop("supervisor")
        self._socket: socket.socket | None = None
        self._pause_s = _FIRST_PAUSE_S
        self._restart_at: float | None = None
        self._left = False
        self._looked = time.monotonic()
        self._begin()

    @property
    def sentinel(self) -> int | None:
        """Readable when the process ends; None while it is known to be dead."""
        return None if self._restart_at is not None else self.process.sentinel

    def look(self) -> None:
        """One turn: hears the heartbeat, ends who has none, starts again who is dead.

        Never raises: what can't be done now is tried again in a later turn.
        """
        try:
            self._turn()
        except BaseException as error:
            self._loop.failed(error)
        else:
            self._loop.succeeded()

    def _turn(self) -> None:
        now = time.monotonic()
        turn_s, self._looked = min(now - self._looked, MAX_TURN_S), now
        if self._restart_at is None:
            if self.process.is_alive():
                self._listen(turn_s)
            else:
                self._note_death(now)
        if self._restart_at is not None and now >= self._restart_at:
            # Before it is tried: where no process can be started, there is a pause, too.
            self._restart_at = now + _RETRY_S
            process = self._start()
            self.process, self._restart_at = process, None
            self._begin()
            with quietly():
                metrics.WORKER_RESTARTS.inc()

    def leave(self) -> None:
        """Ends the connection for good: a worker that drains waits until nobody is connected."""
        self._left = True
        self._hang_up()

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _begin(self) -> None:
        self._began = time.monotonic()
        self._listens = False
        self._silent_s = 0.0

    def _note_death(self, now: float) -> None:
        self._hang_up()
        lived_s = now - self._began
        self._pause_s = (
            _FIRST_PAUSE_S if lived_s > _STABLE_S else min(self._pause_s * 2, _LAST_PAUSE_S)
        )
        self._restart_at = now + self._pause_s
        logger.error(
            "inference worker %s; starting it again in %.1f s", end_of(self.process), self._pause_s
        )
        with quietly():
            if self.process.pid is not None:
                self._forget(self.process.pid)

    def _listen(self, turn_s: float) -> None:
        if self._hears():
            self._silent_s = 0.0
            return
        self._silent_s += turn_s
        limit_s = self._timeout_s if self._listens else max(START_S, self._timeout_s)
        if self._silent_s > limit_s:
            logger.critical(
                "inference worker (pid %s) has given no sign of life for %.0f s: killed",
                *(self.process.pid, self._silent_s),
            )
            with quietly():
                metrics.WORKER_HANGS.inc()
            self._silent_s = 0.0
            self.process.kill()

    def _hears(self) -> bool:
        """True where anything has come from the worker since the last time; it is not looked at."""
        if self._socket is None and not self._left:
            self._connect()
        heard = False
        for _ in range(_MAX_READS):
            if self._socket is None:
                break
            try:
                data = self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:  # it closed the connection; it may listen anew
                self._hang_up()
                break
            heard = True
        return heard

    def _connect(self) -> None:
        link = socket.socket(socket.AF_UNIX)
        link.setblocking(False)
        try:
            link.connect(str(self._path))
        except OSError:  # it doesn't listen yet, or its queue is full
            link.close()
            return
        self._socket = link
        if not self._listens:
            # It has started, whether or not it is heard: it may hang before its first heartbeat.
            self._listens, self._silent_s = True, 0.0


def end_of(process: BaseProcess) -> str:
    """How a process ended, in words."""
    code = process.exitcode
    if code is not None and code < 0:
        name = str(-code)
        with contextlib.suppress(ValueError):
            name = signal.Signals(-code).name
        return f"(pid {process.pid}) was killed by {name}"
    return f"(pid {process.pid}) ended with exit code {code}"
