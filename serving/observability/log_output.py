"""Where a process's lines go: written by a thread, so that nobody waits for whoever reads them.

A pipe that nobody reads, a terminal that is held, a disk that is full: lines then gather here, up
to a bound, and are lost beyond it. The lost ones are counted, and the log says how many when it
flows again. Lines of one process keep their order, on stdout and stderr together.

A process that will still fork has no thread: it writes what can be written at once, and keeps the
rest for later. Its children begin with nothing.
"""

import atexit
import contextlib
import io
import os
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from serving.observability.log_target import Target, target_of

STDOUT, STDERR = 1, 2
MAX_LINES = 8192
MAX_BYTES = 4 << 20
CLOSING_S = 2.0
"""How long a process that ends waits for its last lines to be read."""
_AT_ONCE_BYTES = 4096  # PIPE_BUF: so much is written to a pipe in one piece, or not at all
_LAST_PAUSE_S = 1.0


class _Piece(NamedTuple):
    stream: int
    data: bytes


class LogOutput:
    """What this process has said, and is still to be written."""

    def __init__(self) -> None:
        # Reentrant: what the garbage collector ends in the midst of it may log.
        self._lock = threading.RLock()
        self._pieces: deque[_Piece] = deque()
        self._num_bytes = 0
        self._writing = False
        self._num_lost = 0
        """Not yet said by the log."""
        self._uncounted = 0
        """Not yet counted by `count_lost`."""
        self._full = False
        # A queue of C: unlike an Event it can be used from within itself.
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._threaded = False
        self._patience_s: float | None = None
        """How long it may still be waited for; None before the process ends."""
        self._targets: dict[int, Target] = {}
        self.describe_lost: Callable[[int], bytes] = lambda num: b""
        """Gives the line that says how many were lost."""
        self.count_lost: Callable[[int], bool] = lambda num: True
        """Counts them, without waiting for anything; False where that can't be done just now."""

    def write(self, stream: int, data: bytes) -> None:
        """Has a line written, soon; loses it where too many wait. Never raises, never waits."""
        with self._lock:
            if self._full or len(self._pieces) >= MAX_LINES or self._num_bytes > MAX_BYTES:
                self._full = True
                self._num_lost += 1
                self._uncounted += 1
                if self.count_lost(self._uncounted):
                    self._uncounted = 0
            else:
                self._pieces.append(_Piece(stream, data))
                self._num_bytes += len(data)
        if self._threaded:
            self._wake.put(None)
            self._ensure_thread()
        else:
            self._write_at_once()
        if self._patience_s is not None:
            self._wait_until_written()

    def start_thread(self) -> None:
        """This process forks no more: from now on a thread writes."""
        self._threaded = True
        self._ensure_thread()
        self._wake.put(None)

    def close(self, timeout_s: float = CLOSING_S) -> None:
        """Waits until all is written, but not for ever; what comes later is still written.

        However often it is called, and whatever is said in between, all of it together waits no
        longer than the shortest timeout_s.
        """
        patience_s = timeout_s if self._patience_s is None else self._patience_s
        self._patience_s = min(patience_s, timeout_s)
        self.start_thread()
        self._wait_until_written()

    def after_fork(self) -> None:
        """What the parent has said is the parent's to write; its thread isn't here."""
        self._lock = threading.RLock()
        self._pieces.clear()
        self._num_bytes = self._num_lost = self._uncounted = 0
        self._wake = queue.SimpleQueue()
        self._thread, self._patience_s = None, None
        self._threaded = self._writing = self._full = False

    def _ensure_thread(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            thread = threading.Thread(target=self._run, name="log", daemon=True)
            # Where there can be none now, one of the next lines tries again.
            with contextlib.suppress(RuntimeError):
                thread.start()
                self._thread = thread

    def _run(self) -> None:
        pause_s = 0.0
        while True:
            written = False
            with contextlib.suppress(BaseException):
                if not self._pieces:
                    self._wake.get()
                with contextlib.suppress(queue.Empty):
                    while True:
                        self._wake.get_nowait()
                written = self._write_pieces(wait=True)
            pause_s = 0.0 if written else min(pause_s * 2 + 0.01, _LAST_PAUSE_S)
            if pause_s:  # nobody reads, the disk is full, the reader has gone
                time.sleep(pause_s)

    def _write_at_once(self) -> None:
        with contextlib.suppress(BaseException):
            self._write_pieces(wait=False)

    def _write_pieces(self, *, wait: bool) -> bool:
        """Writes what there is; False where that failed, and the rest is to be tried later.

        wait: also for whoever reads it; else only what can be written at once.
        """
        while True:
            with self._lock:
                taken = self._take()
                self._writing = bool(taken.data)
            if not taken.data:
                return True
            rest = taken.data
            try:
                rest = self._target(taken.stream).write(rest, wait=wait)
            finally:
                with self._lock:
                    self._writing = False
                    if rest:
                        self._pieces.appendleft(_Piece(taken.stream, rest))
                        self._num_bytes += len(rest)
                    else:
                        self._say_what_was_lost()
            if rest:
                return False

    def _take(self) -> _Piece:
        """The next lines of one stream, as many as are written in one piece."""
        if not self._pieces:
            return _Piece(STDERR, b"")
        stream, data = self._pieces.popleft()
        parts, size = [data], len(data)
        while (
            self._pieces
            and self._pieces[0].stream == stream
            and size + len(self._pieces[0].data) <= _AT_ONCE_BYTES
        ):
            parts.append(self._pieces.popleft().data)
            size += len(parts[-1])
        self._num_bytes -= size
        return _Piece(stream, b"".join(parts))

    def _say_what_was_lost(self) -> None:
        """Once half of what waited is written: the lines that were lost would have come next."""
        few = len(self._pieces) <= MAX_LINES // 2 and self._num_bytes <= MAX_BYTES // 2
        if self._full and few:
            self._full = False
            if self._uncounted and self.count_lost(self._uncounted):
                self._uncounted = 0
            data = self.describe_lost(self._num_lost)
            self._num_lost = 0
            self._pieces.append(_Piece(STDERR, data))
            self._num_bytes += len(data)

    def _wait_until_written(self) -> None:
        began, patience_s = time.monotonic(), self._patience_s or 0.0
        ends_at = began + patience_s
        while (self._pieces or self._writing) and time.monotonic() < ends_at:
            if self._thread is None:
                self._write_at_once()
            time.sleep(0.005)
        self._patience_s = max(0.0, patience_s - (time.monotonic() - began))

    def _target(self, stream: int) -> Target:
        if stream not in self._targets:
            self._targets[stream] = target_of(stream)
        return self._targets[stream]


class LineStream(io.TextIOBase):
    """Takes the place of sys.stdout or sys.stderr: whole lines, and what is flushed."""

    def __init__(self, output: LogOutput, descriptor: int) -> None:
        self._output = output
        self._descriptor = descriptor
        self._start = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of what is written: any text can be."""
        return "utf-8"

    def fileno(self) -> int:
        """The descriptor that its lines go to."""
        return self._descriptor

    def isatty(self) -> bool:
        """True where a person reads that descriptor."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """Always: what can't be written now waits, or is counted as lost."""
        return True

    def write(self, text: str) -> int:
        """Hands whole lines on; keeps what has no end of line yet."""
        lines = (self._start + text).split("\n")
        self._start = lines.pop()
        for line in lines:
            self._write(line + "\n")
        return len(text)

    def flush(self) -> None:
        """Hands on what has no end of line yet; never waits."""
        start, self._start = self._start, ""
        if start:
            self._write(start)

    def _write(self, text: str) -> None:
        self._output.write(self._descriptor, text.encode("utf-8", "backslashreplace"))


output = LogOutput()
"""Of this process."""


def adopt_streams() -> None:
    """What is printed goes the same way from now on; nothing more happens at a second call."""
    if isinstance(sys.stdout, LineStream):
        return
    sys.stdout, sys.stderr = LineStream(output, STDOUT), LineStream(output, STDERR)
    atexit.register(output.close)


os.register_at_fork(after_in_child=output.after_fork)
