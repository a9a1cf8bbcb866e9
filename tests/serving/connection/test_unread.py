"""How fast a client must take its answer."""

import pytest

from serving.connection.unread import Unread, head_of
from serving.http.memory import Hold, Memory

WINDOW_S = 10.0


def unread(num_bytes: int) -> Unread:
    return Unread(Hold(Memory(1)), num_bytes, now=0.0)


def pace(answer: Unread, size: int, rate: float, *, draining: bool = False) -> float | None:
    """Seconds until a client that takes `rate` bytes a second is too slow; None if it never is."""
    now, left = 0.0, float(size)
    while left > 0:
        now, left = now + 0.25, left - rate / 4
        answer.see(int(left), now)
        if answer.is_too_slow(now, WINDOW_S, draining=draining):
            return now
    return None


@pytest.mark.parametrize(
    ("size", "rate", "ends"),
    [
        (10_000_000, 0, WINDOW_S),
        (10_000_000, 60_000, WINDOW_S),
        (10_000_000, 65_000, None),
        (500_000, 6_000, WINDOW_S),
        (500_000, 7_000, None),
        (1_000, 0, WINDOW_S),
        (60_000, 7_000, None),
    ],
)
def test_a_client_takes_64_kib_and_a_16th_in_every_window(
    size: int, rate: float, ends: float | None
) -> None:
    assert pace(unread(size), size, rate) == ends


def test_a_drain_waits_a_second() -> None:
    assert pace(unread(10_000_000), 10_000_000, 60_000, draining=True) == 1.0
    assert pace(unread(10_000_000), 10_000_000, 70_000, draining=True) is None


def test_who_takes_nothing_is_stalled() -> None:
    answer = unread(1000)
    answer.see(900, 3.0)
    answer.see(900, 5.0)
    assert answer.stalled_s(6.0) == 3.0


def test_no_header_can_begin_another_answer() -> None:
    assert head_of(200, ((b"a", b"b"),)) == b"HTTP/1.1 200 OK\r\na: b\r\n\r\n"
    with pytest.raises(ValueError, match="line end"):
        head_of(200, ((b"a", b"b\r\n\r\nHTTP/1.1 200 OK"),))
