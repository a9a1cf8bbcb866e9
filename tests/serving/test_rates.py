"""Token buckets: what a key gets over any time, and over any number of processes."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import rates
from serving.keys import Key, make_key
from serving.rates import Rates


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(rates.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def key(number: int, rows_per_s: float = 4, burst: int = 10) -> Key:
    return make_key(f"key-{number}", bytes([number]) * 32, rows_per_s, burst)


def test_a_bucket_is_full_at_first_and_fills_again(tmp_path: Path, clock: Clock) -> None:
    shared = Rates(tmp_path / "rates")
    assert shared.take(key(1), 10) == 0
    assert shared.take(key(1), 2) == 0.5  # seconds until there are two
    clock.now += 0.5
    assert shared.take(key(1), 2) == 0
    clock.now += 3600
    assert shared.take(key(1), 10) == 0
    assert shared.take(key(1), 1) == 0.25


def test_keys_have_buckets_of_their_own_that_processes_share(tmp_path: Path, clock: Clock) -> None:
    one, other = Rates(tmp_path / "rates"), Rates(tmp_path / "rates")
    assert [one.take(key(n), 10) for n in (1, 2)] == [0, 0]
    assert other.take(key(2), 1) > 0
    assert other.take(key(3), 10) == 0
    assert one.take(key(3), 1) > 0
    # The same key under another limit, after the file was changed: what it took still counts.
    assert one.take(key(3, rows_per_s=8, burst=20), 1) == 1 / 8


@given(
    asked=st.lists(st.tuples(st.floats(0, 10), st.integers(1, 10)), max_size=60),
)
def test_nobody_gets_more_than_burst_and_rate_allow(
    tmp_path_factory: pytest.TempPathFactory, asked: list[tuple[float, int]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock(patch)
        began = clock.now
        shared = Rates(tmp_path_factory.mktemp("rates") / "rates")
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
        shared.close()


PROCESS = """
import sys
from pathlib import Path
from serving.keys import make_key
from serving.rates import Rates

shared = Rates(Path(sys.argv[1]))
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
