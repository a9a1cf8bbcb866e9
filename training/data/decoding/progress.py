"""The progress line of decoding."""

import sys
import time

_AFTER_S = 2.0


class Progress:
    """A progress line on stderr, shown after two seconds and on a terminal only."""

    def __init__(self, total: int) -> None:
        """total: number of images."""
        self._total = total
        self._start_s = time.monotonic()
        self._shown = False

    def show(self, done: int) -> None:
        """Replaces the line; done: number of images so far."""
        if time.monotonic() - self._start_s < _AFTER_S or not sys.stderr.isatty():
            return
        self._shown = True
        print(f"\rdecoding images: {done} of {self._total}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Ends the line, if there was one."""
        if self._shown:
            print(file=sys.stderr)
