"""Standard output whose reader may go away, as in `--help | head`, or as a terminal does."""

import io
import os
from typing import Protocol, TextIO

from models.stdout import ClosedPipeIgnored, point_nowhere

__all__ = ["ClosedPipeIgnored", "LastingStream", "Stream"]


class Stream(Protocol):
    """What is needed of a text stream."""

    def write(self, text: str, /) -> int:
        """Writes text; returns its length."""
        ...

    def flush(self) -> None:
        """Passes on what was written."""
        ...

    def isatty(self) -> bool:
        """True for a terminal."""
        ...


class LastingStream:
    """A stream whose failures cost the text alone: what writes to it goes on.

    A reader ends (EPIPE), a terminal is closed (EIO), the disk of a file is full (ENOSPC).
    """

    def __init__(self, stream: TextIO | None) -> None:
        """stream: None where the process was started without one, as by `>&-`."""
        self._stream = stream

    def write(self, text: str, /) -> int:
        """Writes the text, or drops it."""
        try:
            if self._stream is not None:
                self._stream.write(text)
        except (OSError, ValueError):  # ValueError: it was closed
            self._drop()
        return len(text)

    def flush(self) -> None:
        """Passes on what was written, or drops it."""
        try:
            if self._stream is not None:
                self._stream.flush()
        except (OSError, ValueError):
            self._drop()

    def isatty(self) -> bool:
        """True for a terminal that is there."""
        try:
            return self._stream is not None and self._stream.isatty()
        except (OSError, ValueError):
            return False

    def _drop(self) -> None:
        """Empties the buffer: Python writes it once more at exit, which would fail then."""
        if not isinstance(self._stream, io.TextIOWrapper) or self._stream.closed:
            return
        descriptor = self._stream.fileno()
        kept = os.dup(descriptor)
        try:
            point_nowhere(descriptor)
            self._stream.flush()
        finally:
            os.dup2(kept, descriptor)
            os.close(kept)
