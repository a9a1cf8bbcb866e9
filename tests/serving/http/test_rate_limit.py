"""Token buckets: what a key gets over any time, and over any number of processes."""

import fcntl
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.http import rate_limit
from serving.http.rate_limit import RateLimiter
from serving.keys.key import Key, make_key


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(rate_limit.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def key(number: int, rows_per_s: float = 4, burst: int = 10) -> Key:
    return make_key(f"key-{number}", bytes([number]) * 32, rows_per_s, burst)


@pytest.fixture
def file() -> Iterator[int]:
    """What the HTTP processes of a server share."""
    descriptor = os.memfd_create("rates")
    yield descriptor
    os.close(descriptor)


def test_a_bucket_is_full_at_first_and_fills_again(file: int, clock: Clock) -> None:
    shared = RateLimiter(file)
    assert shared.take(key(1), 10) == 0
    assert shared.take(key(1), 2) == 0.5  # seconds until there are two
    clock.now += 0.5
    assert shared.take(key(1), 2) == 0
    clock.now += 3600
    assert shared.take(key(1), 10) == 0
    assert shared.take(key(1), 1) == 0.25


def test_keys_have_buckets_of_their_own_that_processes_share(file: int, clock: Clock) -> None:
    one, other = RateLimiter(file), RateLimiter(file)
    assert [one.take(key(n), 10) for n in (1, 2)] == [0, 0]
    assert other.take(key(2), 1) > 0
    assert other.take(key(3), 10) == 0
    assert one.take(key(3), 1) > 0
    # The same key under another limit, after the file was changed: what it took still counts.
    assert one.take(key(3, rows_per_s=8, burst=20), 1) == 1 / 8


@given(
    asked=st.lists(st.tuples(st.floats(0, 10), st.integers(1, 10)), max_size=60),
)
def test_nobody_gets_more_than_burst_and_rate_allow(asked: list[tuple[float, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryFile() as file:
        clock = Clock(patch)
        began = clock.now
        shared = RateLimiter(file.fileno())
        taken = 0
        for pause_s, num_rows in asked:
            clock.now += pause_s
            wait_s = shared.take(key(1), num_rows)
            taken += 0 if wait_s else num_rows
            assert taken <= 10 + 4 * (clock.now - began) + 1e-6
            if wait_s:  # what it says is enough, and no less would do
                clock.now += wait_s + 1e-9
                assert shared.take(key(1), num_rows) == 0
                taken += num_rows


PROCESS = """
import os
import sys
from serving.keys.key import make_key
from serving.http.rate_limit import RateLimiter

shared = RateLimiter(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT))
key = make_key("key", b"k" * 32, 1e-6, 3000)
print("ready", flush=True)
sys.stdin.readline()
print(sum(shared.take(key, 1) == 0 for _ in range(2000)))
"""


def test_processes_at_once_take_no_image_twice(tmp_path: Path) -> None:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(tmp_path / "rates")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    taken = [int(process.communicate()[0]) for process in started]
    assert sum(taken) == 3000


STOPPED = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.lockf(file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.readline()
"""


def test_nobody_waits_for_a_process_that_was_stopped_while_it_took_some(tmp_path: Path) -> None:
    path = tmp_path / "rates"
    command = [sys.executable, "-c", STOPPED, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as stopped:
        assert stopped.stdout is not None
        assert stopped.stdout.readline() == "locked\n"
        descriptor = os.open(path, os.O_RDWR)
        try:
            with pytest.raises(OSError, match="temporarily unavailable"):
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shared = RateLimiter(descriptor)
            assert shared.take(key(1, rows_per_s=1e-6), 6) == 0
            assert shared.take(key(1, rows_per_s=1e-6), 6) > 0
        finally:
            os.close(descriptor)
        stopped.communicate("go on\n")


def test_where_there_is_no_room_for_a_bucket_each_process_has_its_own(clock: Clock) -> None:
    read_only = os.open("/dev/zero", os.O_RDONLY)
    try:
        shared = RateLimiter(read_only)
        assert shared.take(key(1), 10) == 0
        wait_s = shared.take(key(1), 2)
        assert wait_s == 0.5
        assert not math.isnan(wait_s)
    finally:
        os.close(read_only)
