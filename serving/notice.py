"""Something that happens once and is told to all who wait for it, in this process and its forks."""

import os
import select


class Notice:
    """Given from a signal handler or a thread, waited for by others: a pipe, as locks aren't safe.

    Forked processes see it given as well.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        self._given = False

    def set(self) -> None:
        """Gives it: whoever waits goes on."""
        if not self._given:
            self._given = True
            os.write(self._writer, b"x")

    def is_set(self) -> bool:
        """True once it was given."""
        return self._given or bool(select.select([self._reader], [], [], 0)[0])

    def wait(self) -> None:
        """Returns when it was given."""
        while not self.is_set():
            select.select([self._reader], [], [])

    def fileno(self) -> int:
        """Readable from then on."""
        return self._reader
