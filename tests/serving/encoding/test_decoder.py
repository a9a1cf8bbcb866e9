"""The processes that decode: what a file does to one of them is that file's own fault alone."""

import fcntl
import io
import os
import signal
import socket
import struct
import termios
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from serving.encoding import decoder as decoding
from serving.encoding.decoder import Decoder
from serving.encoding.decoder_process import LENGTHS, Answer
from serving.encoding.pixels import Decoded, Wanted
from serving.errors import InvalidRequestProblem, OverloadedProblem, UnavailableProblem
from tests.support import wait_for

WANTED = Wanted(field="image", height=2, width=2, channels=1, fit="stretch", max_pixels=1 << 24)


def npy(array: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


GOOD = npy(np.array([[1, 2], [3, 4]], np.uint8))


@pytest.fixture(scope="module")
def ended() -> list[str]:
    """What became of the files of `decoder`."""
    return []


@pytest.fixture(scope="module")
def decoder(ended: list[str]) -> Iterator[Decoder]:
    made = Decoder(
        max_pixels=1 << 24,
        timeout_s=0.2,
        on_end=lambda outcome, seconds: ended.append(outcome),
        num_processes=1,
    )
    yield made
    made.shut_down()


def process_of(decoder: Decoder) -> Any:
    """Its only process, which does nothing now."""
    (process,) = decoder._idle
    return process._process


def unread(end: socket.socket) -> int:
    """The kernel's memory for what was sent there and not read yet, in bytes."""
    (found,) = struct.unpack("i", fcntl.ioctl(end.fileno(), termios.TIOCOUTQ, bytes(4)))
    return int(found)


def least_unread() -> int:
    """The same for one short message."""
    one, other = socket.socketpair()
    with one, other:
        one.sendall(b"x")
        return unread(one)


LEAST_UNREAD = least_unread()


def test_a_file_becomes_pixels_and_a_bad_one_words(decoder: Decoder, ended: list[str]) -> None:
    ended.clear()
    found = decoder.submit(GOOD, WANTED).result()
    assert found.pixels[:, :, 0].tolist() == [[1, 2], [3, 4]]
    assert found.known is None
    before = process_of(decoder).pid
    with pytest.raises(InvalidRequestProblem, match="image begins with b'GIF8'"):
        decoder.submit(b"GIF8", WANTED).result()
    assert process_of(decoder).pid == before  # a refusal costs nothing
    assert ended == ["decoded", "refused"]


def test_a_file_that_takes_too_long_is_refused_and_the_next_is_decoded(
    decoder: Decoder, ended: list[str]
) -> None:
    """A JPEG of 16 million pixels takes a second of processor time; it may take a fifth."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    Image.fromarray(np.tile(noise, (8, 8, 1))).save(buffer, "JPEG", quality=95, progressive=True)
    ended.clear()
    with pytest.raises(InvalidRequestProblem, match=r"image takes more than 0.2 s of processor"):
        decoder.submit(buffer.getvalue(), WANTED).result()
    assert ended == ["ended"]
    assert decoder.submit(GOOD, WANTED).result().pixels.shape == (2, 2, 1)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_a_file_that_ends_its_process_is_refused_alone(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    decoder.submit(GOOD, WANTED).result()
    (worker,) = decoder._idle
    process = process_of(decoder)
    os.kill(process.pid, signal.SIGSTOP)
    doomed = decoder.submit(GOOD, WANTED)
    waiting = decoder.submit(GOOD, WANTED)
    # Both messages of a file are on their way: else it would get another process.
    wait_for(lambda: unread(worker.socket) >= 2 * LEAST_UNREAD)
    os.kill(process.pid, number)
    os.kill(process.pid, signal.SIGCONT)
    with pytest.raises(InvalidRequestProblem, match="ended the process that decoded it"):
        doomed.result()
    assert waiting.result().pixels.shape == (2, 2, 1)


def test_a_process_that_was_ended_while_it_rested_costs_no_file(decoder: Decoder) -> None:
    decoder.submit(GOOD, WANTED).result()
    process = process_of(decoder)
    os.kill(process.pid, signal.SIGTERM)  # a whole service may be told so: its requests go on
    assert decoder.submit(GOOD, WANTED).result().pixels.shape == (2, 2, 1)
    assert process_of(decoder).pid == process.pid
    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert decoder.submit(GOOD, WANTED).result().pixels.shape == (2, 2, 1)
    assert process_of(decoder).pid != process.pid


def test_a_process_that_hangs_is_ended(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_WAIT_FACTOR", 0.5)
    decoder.submit(GOOD, WANTED).result()
    process = process_of(decoder)
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(UnavailableProblem, match=r"image was not decoded within 0.1 s"):
        decoder.submit(GOOD, WANTED).result()
    assert process.poll() is not None
    monkeypatch.undo()
    assert decoder.submit(GOOD, WANTED).result().pixels.shape == (2, 2, 1)


def test_more_files_than_may_wait_are_refused(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "MAX_WAITING", 2)
    decoder.submit(GOOD, WANTED).result()
    process = process_of(decoder)
    os.kill(process.pid, signal.SIGSTOP)
    held: list[Future[Decoded]] = [decoder.submit(GOOD, WANTED) for _ in range(2)]
    with pytest.raises(OverloadedProblem, match="2 images wait to be decoded, 2 may"):
        decoder.submit(GOOD, WANTED)
    os.kill(process.pid, signal.SIGCONT)
    assert [each.result().pixels.shape for each in held] == [(2, 2, 1)] * 2
    wait_for(lambda: decoder._num_waiting == 0)


def limits_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
    return {line[:26].strip(): line[26:].split()[0] for line in lines}


def test_a_process_has_little_memory_and_no_files(decoder: Decoder) -> None:
    decoder.submit(GOOD, WANTED).result()
    limits = limits_of(process_of(decoder).pid)
    assert limits["Max file size"] == limits["Max core file size"] == "0"
    assert int(limits["Max address space"]) < 2 << 30


def test_processes_end_with_the_decoder(ended_after: Callable[[Decoder], bool]) -> None:
    made = Decoder(max_pixels=100, timeout_s=1)
    made.submit(GOOD, WANTED).result()
    assert ended_after(made)


@pytest.fixture
def ended_after() -> Callable[[Decoder], bool]:
    def check(made: Decoder) -> bool:
        process = process_of(made)
        made.shut_down()
        return process.poll() is not None

    return check


@pytest.mark.parametrize(
    ("claimed", "answer"),
    [
        ((64, 1 << 31), Answer((2, 2, 1), False, "")),
        ((1 << 31, 4), Answer((2, 2, 1), False, "")),
        ((None, 4), Answer((9, 9, 1), False, "")),
        ((None, 4), Answer((-2, -2, 1), False, "")),
        ((None, 4), Answer((2, 2, 1), True, "")),
        ((None, 0), Answer((0, 2, 1), False, "")),
    ],
)
def test_a_process_that_a_file_took_over_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, claimed: tuple[int | None, int], answer: Answer
) -> None:
    """Memory is taken for no more than what was wanted, and shapes are compared with bytes."""
    message = msgspec.msgpack.encode(answer)
    num_message, num_body = claimed
    sent = LENGTHS.pack(num_message or len(message), num_body)
    script = (
        "import socket, sys, time; "
        "connection = socket.socket(fileno=int(sys.argv[1])); connection.recv(1); "
        f"connection.sendall({sent + message + bytes(min(num_body, 4))!r}); time.sleep(60)"
    )
    monkeypatch.setattr(decoding, "_START", script)
    decoder = Decoder(max_pixels=100, timeout_s=10, num_processes=1)
    with pytest.raises(InvalidRequestProblem, match="ended the process"):
        decoder.submit(GOOD, WANTED).result()
    decoder.shut_down()


def test_the_process_doesn_t_know_the_server_s_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "1")
    decoder = Decoder(max_pixels=100, timeout_s=10, num_processes=1)
    decoder.submit(GOOD, WANTED).result()
    environ = Path(f"/proc/{process_of(decoder).pid}/environ").read_bytes().split(b"\0")
    decoder.shut_down()
    assert not [line for line in environ if line.startswith(b"SECRET=")]


def test_requests_take_turns_and_interactive_ones_go_first(decoder: Decoder) -> None:
    decoder.submit(GOOD, WANTED).result()
    stopped = process_of(decoder)
    ended: list[str] = []
    os.kill(stopped.pid, signal.SIGSTOP)
    try:
        futures = []
        for name, bulk in [*[("a", False)] * 4, ("bulk", True), ("b", False), ("c", False)]:
            future = decoder.submit(GOOD, WANTED, owner=name, bulk=bulk)
            future.add_done_callback(lambda _, name=name: ended.append(name))
            futures.append(future)
        wait_for(lambda: futures[0].running())
        assert futures[1].cancel()  # one that is not wanted any more
    finally:
        os.kill(stopped.pid, signal.SIGCONT)
    for future in futures[2:]:
        future.result()
    # The cancelled one first, as it ends at once; then a file of each, bulk as the fourth.
    assert ended[:1] == ["a"]
    assert ended[1:] == ["a", "b", "c", "bulk", "a", "a"] or ended[1:] == [
        *("a", "b", "c", "a", "bulk", "a")
    ]


def test_who_is_refused_is_told_how_long_the_queue_lasts(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "MAX_WAITING", 0)
    for file_s, num, pause in ((0.01, 1, b"1"), (2.0, 10, b"20"), (60.0, 64, b"60")):
        monkeypatch.setattr(decoder, "_file_s", file_s)
        monkeypatch.setattr(decoder, "_num_waiting", num)
        with pytest.raises(OverloadedProblem, match=f"try again in {pause.decode()} s") as refused:
            decoder.submit(GOOD, WANTED)
        assert (b"retry-after", pause) in refused.value.headers
    monkeypatch.setattr(decoder, "_num_waiting", 0)
