"""How fast rows are being made, for the Retry-After of requests that are refused."""

import time

_HALF_LIFE_S = 2.0


class ServiceRate:
    """Rows per second that this process gets back from the workers, as a moving average."""

    def __init__(self) -> None:
        self._rows = self._weight = 0.0
        self._last = time.perf_counter()

    def add(self, num_rows: int) -> None:
        """Counts rows that have just been made."""
        now = time.perf_counter()
        elapsed = now - self._last
        decay = 0.5 ** (elapsed / _HALF_LIFE_S)
        self._rows = self._rows * decay + num_rows
        self._weight = self._weight * decay + elapsed
        self._last = now

    def seconds_for(self, num_rows: int) -> int:
        """Returns the whole seconds, at least 1, until so many rows will have been made."""
        if not self._rows or not self._weight:
            return 1
        return max(1, round(num_rows * self._weight / self._rows))
