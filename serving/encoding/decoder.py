"""Decodes images that strangers send, in processes of their own.

A few threads have a process each (`serving.encoding.decoder_process`), started when the first image
comes. One that doesn't answer, or ends, is replaced; the file that it had is refused, and nothing
else is lost. Nothing of a file is kept.
"""

import contextlib
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec
import numpy as np

from serving.encoding.decoder_process import LENGTHS, Answer, read_exactly
from serving.encoding.decoder_queue import DecoderQueue, Waiting
from serving.encoding.pixels import Decoded, Wanted
from serving.errors import InvalidRequestProblem, OverloadedProblem, UnavailableProblem

NUM_PROCESSES = 2
MAX_WAITING = 64
"""Files that may wait for one of them; more are refused."""
_WAIT_FACTOR = 15  # a machine that does other work gives a process a part of its time
_START_S = 30.0
_LONGEST_PAUSE_S = 60  # that a client is told to wait
_MAX_MESSAGE_BYTES = 1 << 16
# What a Python needs to start; the server's environment may hold credentials.
_VARIABLES = (
    *("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "VIRTUAL_ENV"),
    *("PYTHONHOME", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"),
)

_START = (
    "import sys; sys.path[:] = sys.argv[4:]; "
    "from serving.encoding.decoder_process import main; "
    "main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))"
)
_answers = msgspec.msgpack.Decoder(Answer)

Outcome = str
DECODED, REFUSED, ENDED = OUTCOMES = ("decoded", "refused", "ended")
"""What becomes of files: `ended` those whose process crashed, or took too long."""


class _Process:
    """A process, and the socket to it."""

    def __init__(self, max_pixels: int, cpu_s: float) -> None:
        self.socket, theirs = socket.socketpair()
        number = theirs.fileno()
        arguments = [str(number), str(max_pixels), str(cpu_s), *sys.path]
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, *arguments],
                pass_fds=[number],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Nothing secret. Threads of a linear algebra that it never uses would take memory
                # from images.
                env={name: os.environ[name] for name in _VARIABLES if name in os.environ}
                | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            )
        self.is_new = True

    def exchange(self, data: bytes, wanted: Wanted, timeout_s: float) -> tuple[Answer, bytearray]:
        """Sends a file and reads the answer.

        What comes is not trusted: a file may have taken the process over.

        Raises:
            TimeoutError: there is none in time.
            EOFError, OSError: the process has ended, or answers with more than was wanted.
        """
        asked = msgspec.msgpack.encode(wanted)
        deadline = time.monotonic() + timeout_s + (_START_S if self.is_new else 0.0)
        self.socket.settimeout(_left_s(deadline))
        self.socket.sendall(LENGTHS.pack(len(asked), len(data)) + asked)
        self.socket.sendall(data)
        self.socket.settimeout(_left_s(deadline))
        num_message, num_body = LENGTHS.unpack(read_exactly(self.socket, LENGTHS.size))
        if num_message > _MAX_MESSAGE_BYTES or num_body > _most_bytes(wanted):
            raise EOFError
        answer = _answers.decode(read_exactly(self.socket, num_message))
        body = read_exactly(self.socket, num_body)
        height, width, channels = answer.shape
        size = height * width * (channels + answer.has_known)
        if min(answer.shape) < 0 or size != num_body or not (answer.refused or size):
            raise EOFError
        self.is_new = False
        return answer, body

    @property
    def has_ended(self) -> bool:
        """Whether it ended while it had nothing to do: somebody else has ended it."""
        return self._process.poll() is not None

    def end(self) -> int:
        """Ends it, if it hasn't by itself; gives the exit code, negative for a signal."""
        with contextlib.suppress(subprocess.TimeoutExpired):  # it closes its socket before it ends
            self._process.wait(0.1)
        self._process.kill()
        self.socket.close()
        return self._process.wait()


class Decoder:
    """The processes of one HTTP process; threads may share it."""

    def __init__(
        self,
        *,
        max_pixels: int,
        timeout_s: float,
        on_end: Callable[[Outcome, float], None] = lambda outcome, seconds: None,
        num_processes: int = NUM_PROCESSES,
    ) -> None:
        """Starts nothing yet.

        Args:
            max_pixels: of a file; more are refused before memory is taken for them.
            timeout_s: processor time of a file.
            on_end: called in a thread with what became of a file, and the seconds that it took.
            num_processes: files that are decoded at once.
        """
        self._max_pixels, self._timeout_s = max_pixels, timeout_s
        self._on_end = on_end
        self._pool = ThreadPoolExecutor(num_processes, thread_name_prefix="decode")
        self._lock = threading.Lock()
        self._idle: list[_Process] = []
        self._is_over = False
        self._num_processes = num_processes
        self._queue = DecoderQueue()
        self._num_waiting = 0
        self._file_s = 0.0  # that a file takes, a moving average

    def submit(
        self, data: bytes, wanted: Wanted, *, owner: object = None, bulk: bool = False
    ) -> "Future[Decoded]":
        """Begins to decode a file; the result raises what `_decode` does.

        Args:
            data: the file.
            wanted: what is to become of it.
            owner: the request: those that wait take turns.
            bulk: others go first.

        Raises:
            OverloadedProblem: too many files wait.
        """
        decoding: Future[Decoded] = Future()
        with self._lock:
            if self._num_waiting >= MAX_WAITING:
                raise self._overloaded()
            self._num_waiting += 1
            self._queue.add(owner, Waiting(data, wanted, decoding), bulk=bulk)
        decoding.add_done_callback(self._leave)
        try:
            self._pool.submit(self._turn)
        except RuntimeError:  # it is shut down
            decoding.cancel()
        return decoding

    def _overloaded(self) -> OverloadedProblem:
        seconds = self._num_waiting * self._file_s / self._num_processes
        pause = min(_LONGEST_PAUSE_S, max(1, math.ceil(seconds)))
        return OverloadedProblem(
            f"{self._num_waiting} images wait to be decoded, {MAX_WAITING} may; try again in "
            f"{pause} s",
            headers=((b"retry-after", b"%d" % pause),),
        )

    def shut_down(self) -> None:
        """Ends the processes; what is being decoded ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._is_over = True
            idle, self._idle = self._idle, []
            left = self._queue.clear()
        for waiting in left:
            waiting.decoding.cancel()
        for process in idle:
            process.end()

    def _turn(self) -> None:
        """Decodes the file whose turn it is, in a thread."""
        with self._lock:
            waiting = self._queue.next()
        if waiting is None:  # those who waited are gone
            return
        began = time.perf_counter()
        try:
            decoded = self._decode(waiting.data, waiting.wanted)
        except BaseException as error:  # whatever it is, somebody waits for an answer
            waiting.decoding.set_exception(error)
        else:
            waiting.decoding.set_result(decoded)
        self._file_s = 0.8 * self._file_s + 0.2 * (time.perf_counter() - began)

    def _leave(self, _: "Future[Decoded]") -> None:
        with self._lock:
            self._num_waiting -= 1

    def _decode(self, data: bytes, wanted: Wanted) -> Decoded:
        """Decodes a file, in a thread.

        Raises:
            InvalidRequestProblem: it can't be used.
            UnavailableProblem: the machine has no time for it.
        """
        began, outcome = time.perf_counter(), ENDED
        try:
            answer, body = self._ask(data, wanted)
            outcome = REFUSED if answer.refused else DECODED
        finally:
            self._on_end(outcome, time.perf_counter() - began)
        if answer.refused:
            raise InvalidRequestProblem(answer.refused)
        size = answer.shape[0] * answer.shape[1] * answer.shape[2]
        pixels = np.frombuffer(body, np.uint8, size).reshape(answer.shape)
        if not answer.has_known:
            return Decoded(pixels, None, answer.size)
        known = np.frombuffer(body, np.uint8, offset=size).reshape(answer.shape[:2])
        return Decoded(pixels, known, answer.size)

    def _ask(self, data: bytes, wanted: Wanted) -> tuple[Answer, bytearray]:
        process = self._take()
        try:
            found = process.exchange(data, wanted, _WAIT_FACTOR * self._timeout_s)
        except TimeoutError:
            process.end()
            raise UnavailableProblem(
                f"{wanted.field} was not decoded within {_WAIT_FACTOR * self._timeout_s:g} s; the "
                "machine is busy, ask again"
            ) from None
        except (EOFError, OSError, msgspec.MsgspecError):
            code = process.end()
            why = (
                f"takes more than {self._timeout_s:g} s of processor time (--decode-timeout-s)"
                if code == -signal.SIGPROF
                else "ended the process that decoded it"
            )
            raise InvalidRequestProblem(
                f"{wanted.field} {why}; it is damaged, or too large: save it anew"
            ) from None
        except BaseException:
            process.end()
            raise
        self._give_back(process)
        return found

    def _take(self) -> _Process:
        with self._lock:
            while self._idle:
                process = self._idle.pop()
                if not process.has_ended:
                    return process
                process.end()  # no file is at fault
        return _Process(self._max_pixels, self._timeout_s)

    def _give_back(self, process: _Process) -> None:
        with self._lock:
            if not self._is_over:
                self._idle.append(process)
                return
        process.end()


def _most_bytes(wanted: Wanted) -> int:
    """Of an answer: pixels, and for each whether it is known."""
    return wanted.height * wanted.width * (wanted.channels + 1)


def _left_s(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())
