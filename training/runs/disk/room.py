"""Waiting for room on a full disk, where going on without it would lose work."""

import errno
import time
from collections.abc import Callable
from typing import TypeVar

from training.runs.interruption import Interruption

T = TypeVar("T")
WAIT_S = 600.0
"""How long to wait for room, at most."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_POLL_S = 0.1
_MOST_PAUSE_S = 30.0


def is_full(error: BaseException | None) -> bool:
    """True where a full disk, or a quota, is what an error comes from."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


def with_room(
    act: Callable[[], T], what: str, interruption: Interruption, say: Callable[[str], None]
) -> T:
    """Calls a function again while the disk is too full for it, for WAIT_S at most.

    Args:
        act: may be called several times.
        what: what it writes, for the message.
        interruption: a signal ends the waiting.
        say: is given a line when the waiting begins.

    Returns:
        What the function returns.

    Raises:
        InterruptedRun: a signal came while it waited.
        Exception: the function's own, for another reason or after WAIT_S.
    """
    pause_s, end = 1.0, None
    while True:
        try:
            return act()
        except Exception as error:
            if not is_full(error):
                raise
            if end is None:
                end = time.monotonic() + WAIT_S
                say(f"warning: {error}; waiting up to {WAIT_S:.0f} s for room for {what}")
            if time.monotonic() >= end:
                raise
        until = min(time.monotonic() + pause_s, end)
        while time.monotonic() < until:
            interruption.check()
            time.sleep(_POLL_S)
        pause_s = min(2 * pause_s, _MOST_PAUSE_S)
