"""Tells how far a run is: images a second, time left; a line that changes, or one now and then."""

import sys
import time
from typing import TextIO

_TERMINAL_S = 0.5
_LOG_S = 15.0


class Progress:
    """Counts images and writes lines."""

    def __init__(self, num_images: int, stream: TextIO | None = None) -> None:
        """num_images: of the whole plan."""
        self._total = num_images
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._interval_s = _TERMINAL_S if self._terminal else _LOG_S
        self._began = self._told = time.monotonic()
        self.made = 0
        self.found = 0

    def add(self, num_images: int, *, made: bool) -> None:
        """Counts a shard's images. made: False where it was there already."""
        if made:
            self.made += num_images
        else:
            self.found += num_images
        now = time.monotonic()
        if now - self._told >= self._interval_s:
            self._told = now
            self._write(self.line())

    def line(self) -> str:
        """How far it is, in words."""
        done = self.made + self.found
        words = f"{done:,} of {self._total:,} images"
        if self.made:
            rate = self.images_per_s
            words += f", {rate:,.0f} images/s"
            if done < self._total:
                words += f", {duration((self._total - done) / rate)} left"
        return words

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._began

    @property
    def images_per_s(self) -> float:
        """Images made a second; those that were there don't count."""
        return self.made / max(self.seconds, 1e-9)

    def end(self) -> None:
        """Ends the line that changes."""
        if self._terminal:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _write(self, line: str) -> None:
        self._stream.write(f"\r\x1b[K{line}" if self._terminal else f"{line}\n")
        self._stream.flush()


def duration(seconds: float) -> str:
    """A time as people say it: 40 s, 12 m, 3 h 20 m, 4 days."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} m"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} m"
    return f"{round(minutes / 60 / 24)} days"


def size(num_bytes: float) -> str:
    """A number of bytes with its unit."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.3g} TB" if num_bytes < 1000 else f"{num_bytes:,.0f} TB"
