"""Lines of progress for what takes longer than two seconds."""

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

INTERVAL_S = 2.0


class Progress:
    """Says how often something slow was computed, every two seconds at most."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """say: is given each line."""
        self._say = say
        self._last = time.monotonic()

    def counted(self, name: str, function: Callable[P, T], of: int | None = None) -> Callable[P, T]:
        """Returns the function, whose calls are counted under the name. of: how many are due."""
        num, started = 0, 0.0

        def counting(*args: P.args, **kwargs: P.kwargs) -> T:
            nonlocal num, started
            started = started or time.monotonic()
            result = function(*args, **kwargs)
            num += 1
            now = time.monotonic()
            if now - self._last >= INTERVAL_S:
                self._last = now
                total = "" if of is None else f" of {of}"
                self._say(f"{name}: {num}{total} computed, {now - started:.0f} s")
            return result

        return counting
