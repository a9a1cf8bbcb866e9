"""Lines on their way out: in order, whole, bounded, and never in anybody's way."""

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import pytest

from serving.observability import log_output
from serving.observability.log_output import LineStream, LogOutput
from tests.support import wait_for

ROOT = Path(__file__).parents[3]

PREAMBLE = """
import logging, os, signal, sys, threading, time
from serving.observability import logs
from serving.settings import Settings

log_format = "text"
logger = logging.getLogger("test")
"""


def run(script: str, tmp_path: Path, **options: object) -> "subprocess.CompletedProcess[str]":
    path = tmp_path / "script.py"
    path.write_text(PREAMBLE + script)
    return subprocess.run(
        [sys.executable, path],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT)},
        timeout=60,
        **options,  # type: ignore[call-overload]
    )


def lines_of(ran: "subprocess.CompletedProcess[str]") -> list[str]:
    """What it wrote to its error stream, less the times."""
    return [re.sub(r"^\d{4}-[\d-]+T[\d:.]+Z ", "", line) for line in ran.stderr.splitlines()]


def test_prints_and_lines_of_the_log_keep_their_order_and_their_streams(tmp_path: Path) -> None:
    ran = run(
        """
logs.configure(Settings(), "main")
logger.info("one")
print("two")
print("three", file=sys.stderr)
logs.write_in_thread()
logger.info("four")
print("fi", end="", flush=True)
print("ve")
logger.info("%s", "six")
logs.close()
logger.info("seven, after the end")
""",
        tmp_path,
    )
    assert ran.stdout == "two\nfive\n"
    lines = ["INFO test: one", "three", "INFO test: four", "INFO test: six"]
    assert lines_of(ran) == [*lines, "INFO test: seven, after the end"]


def test_exceptions_that_nobody_caught_come_out(tmp_path: Path) -> None:
    ran = run(
        """
import warnings
logs.configure(Settings(), "main")
logs.write_in_thread()
def fail():
    raise OSError("in a thread")
thread = threading.Thread(target=fail, name="mine")
thread.start()
thread.join()
warnings.warn("beware", stacklevel=1)
class Odd:
    def __del__(self):
        raise ValueError("in a finalizer")
del (lambda: Odd())().__dict__
Odd()
logging.getLogger("uvicorn.error").info("foreign")
raise RuntimeError("the end")
""",
        tmp_path,
    )
    assert ran.returncode == 1
    for words in (
        "CRITICAL serving.observability.logs: an exception ends the thread mine",
        "OSError: in a thread",
        "UserWarning: beware",
        "ValueError: in a finalizer",
        "INFO uvicorn.error: foreign",
        "CRITICAL serving.observability.logs: an exception ends the process",
        "RuntimeError: the end",
    ):
        assert words in ran.stderr


def test_a_crash_of_native_code_shows_where_it_was(tmp_path: Path) -> None:
    ran = run(
        """
logs.configure(Settings(), "main")
os.kill(os.getpid(), signal.SIGSEGV)
""",
        tmp_path,
    )
    assert ran.returncode == -11
    assert "Fatal Python error: Segmentation fault" in ran.stderr
    assert "script.py" in ran.stderr


def test_a_forked_process_says_nothing_twice_and_writes_by_itself(tmp_path: Path) -> None:
    ran = run(
        """
logs.configure(Settings(), "main")
logger.info("before")
if not (child := os.fork()):
    logs.write_in_thread()
    logger.info("the child")
    logs.close()
    os._exit(0)
os.waitpid(child, 0)
logger.info("after")
logs.close()
os._exit(0)
""",
        tmp_path,
    )
    assert lines_of(ran) == [
        "INFO test: before",
        "INFO test: the child",
        "INFO test: after",
    ]


def test_what_a_line_cannot_say_ends_nothing(tmp_path: Path) -> None:
    ran = run(
        """
class Bad:
    def __str__(self):
        raise MemoryError
for log_format in ("text", "json"):
    logs.configure(Settings(log_format=log_format), "main")
    logger.info("half a pair: %s", "\\ud800")
    logger.info("%s", Bad())
    logger.info("%d", "no number")
    logger.info("%s", "on", extra=logs.fields(odd=Bad, more={1: object()}))
logs.close()
""",
        tmp_path,
    )
    assert ran.returncode == 0
    assert ran.stderr.count("half a pair: \\ud800") == 2
    assert ran.stderr.count("MemoryError") >= 2
    assert len(re.findall(r'INFO test: on odd=|"message": ?"on"', ran.stderr)) == 2


def test_a_full_disk_loses_lines_and_says_how_many(tmp_path: Path) -> None:
    ran = run(
        """
from serving.observability import log_output, metrics
from serving.observability.shared_values import own_entries
log_output.MAX_LINES = 10
kept = os.dup(2)
os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
logs.configure(Settings(), "main")
logs.write_in_thread()
for number in range(30):
    logger.info("%d", number)
lost = {key.sample: value for _, key, value in own_entries()}["saddlepoint_log_lines_dropped_total"]
os.dup2(kept, 2)
started = time.monotonic()
logs.close(10)
logger.info("now")
print(int(lost), flush=True)
logs.close()
""",
        tmp_path,
    )
    lost = int(ran.stdout)
    lines = lines_of(ran)
    assert 19 <= lost <= 20  # one may be on its way
    assert lines[:-2] == [f"INFO test: {number}" for number in range(30 - lost)]
    assert lines[-2].startswith(f"WARNING serving.observability.logs: {lost} lines of the log were")
    assert lines[-1] == "INFO test: now"


def test_a_reader_that_is_slow_gets_everything_in_order() -> None:
    reader, writer = os.pipe()
    output = LogOutput()
    output.start_thread()
    lines = [b"%d %s\n" % (number, b"x" * (number % 5000)) for number in range(2000)]
    seen = bytearray()

    def read() -> None:
        while data := os.read(reader, 1000):
            seen.extend(data)
            time.sleep(0.00001)

    thread = threading.Thread(target=read)
    thread.start()
    for number, line in enumerate(lines):
        while len(output._pieces) > 1000:
            time.sleep(0.001)
        output.write(writer, line)
        if number % 500 == 0:
            time.sleep(0.01)
    output.close(30)
    os.close(writer)
    thread.join()
    os.close(reader)
    assert bytes(seen) == b"".join(lines)


def test_what_waits_is_bounded_in_lines_and_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    for name, value in (("MAX_LINES", 100), ("MAX_BYTES", 50_000)):
        monkeypatch.setattr(log_output, name, value)
    for line, most in ((b"short\n", 100), (b"x" * 10_000 + b"\n", 6)):
        output = LogOutput()  # without a thread, and what it writes to is full
        counted: list[int] = []
        output.count_lost = lambda num, counted=counted: not counted.append(num)  # type: ignore[misc]
        fill(writer)
        for _ in range(1000):
            output.write(writer, line)
        assert len(output._pieces) <= most
        assert sum(piece.data.count(b"\n") for piece in output._pieces) == 1000 - sum(counted)
        assert sum(len(piece.data) for piece in output._pieces) <= 60_010
    os.close(reader)
    os.close(writer)


def fill(writer: int) -> None:
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)


def test_counting_that_cannot_be_done_now_is_done_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_output, "MAX_LINES", 1)
    reader, writer = os.pipe()
    fill(writer)
    output = LogOutput()
    counted = []

    def count(num: int) -> bool:
        if free:
            counted.append(num)
        return free

    output.count_lost = count
    free = False
    for _ in range(5):
        output.write(writer, b"line\n")
    free = True
    output.write(writer, b"line\n")
    assert counted == [5]
    os.close(reader)
    os.close(writer)


def test_whoever_says_something_at_the_end_waits_no_longer_than_it_may() -> None:
    reader, writer = os.pipe()
    fill(writer)
    output = LogOutput()
    output.write(writer, b"line\n")
    started = time.monotonic()
    output.close(0.2)
    for _ in range(100):
        output.write(writer, b"late\n")
    assert time.monotonic() - started < 5
    os.set_blocking(reader, False)
    while output._pieces or output._writing:  # else its thread would write into another's file
        with contextlib.suppress(BlockingIOError):
            os.read(reader, 1 << 16)
    os.close(reader)
    os.close(writer)


def test_however_often_it_is_closed_all_of_it_waits_no_longer_than_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`serving.run`, atexit and lines that come later would each wait their two seconds."""
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    fake = types.SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep)
    monkeypatch.setattr(log_output, "time", fake)
    reader, writer = os.pipe()
    fill(writer)
    output = LogOutput()
    output.start_thread = lambda: None  # type: ignore[method-assign]
    output.write(writer, b"line\n")
    for _ in range(3):
        output.close(2.0)
        output.write(writer, b"late\n")
    assert clock[0] == pytest.approx(2.0, abs=0.1)
    os.close(reader)
    os.close(writer)


def test_streams_are_adopted_once(tmp_path: Path) -> None:
    ran = run(
        """
import atexit
from serving.observability import log_output
log_output.adopt_streams()
stream, num = sys.stdout, atexit._ncallbacks()
print("half", end="")
logs.configure(Settings(), "main")
print(" a line", sys.stdout is stream, atexit._ncallbacks() - num)
logs.close()
""",
        tmp_path,
    )
    assert ran.stdout == "half a line True 0\n", ran.stderr


def test_a_thread_that_cannot_be_started_is_started_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader, writer = os.pipe()
    output = LogOutput()

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        output.start_thread()
        output.write(writer, b"one\n")
    output.write(writer, b"two\n")
    wait_for(lambda: not output._pieces)
    output.close()
    assert os.read(reader, 100) == b"one\ntwo\n"
    os.close(reader)
    os.close(writer)


def test_a_stream_is_as_text_streams_are() -> None:
    output = LogOutput()
    stream = LineStream(output, 1)
    assert stream.writable()
    assert stream.fileno() == 1
    assert stream.encoding == "utf-8"
    assert stream.isatty() is os.isatty(1)
