"""Whose turn it is to take the next connection, among the HTTP processes of one server.

A process that has few connections answers them as fast alone: a second one would only cut the
batches in halves and wake up more often. So the first process takes `ALONE` connections, then the
second one as many, and so on; from then on the one with the fewest takes the next. Left to
themselves, one process takes most of those that come at once, and the others idle.
"""

import contextlib
import os

from serving.shared_counts import SharedCounts

ALONE = 8
"""Connections that one process answers as fast as two (`benchmarks/serving/processes.py`)."""


class Turns:
    """The number of connections of each process, and a bell for each."""

    def __init__(self, counts: SharedCounts, bells: list[int], index: int) -> None:
        """What the processes share.

        Args:
            counts: connections that a process has taken.
            bells: a descriptor of each process, as `make_bells` gives them.
            index: of this process: 0, 1 ...
        """
        self._counts = counts
        self._bells = bells
        self._index = index
        self._arriving = self._connected = 0

    @property
    def bell(self) -> int:
        """Readable when it has become this process's turn, and others know."""
        return self._bells[self._index]

    def set_arriving(self, number: int) -> None:
        """Connections that were accepted, and are not made yet."""
        self._arriving = number
        self._counts.own = number + self._connected

    def set_connected(self, number: int) -> None:
        """Connections that were made, and are not over."""
        self._connected = number
        self._counts.own = number + self._arriving

    def next(self) -> int:
        """The index of the process that takes the next connection."""
        counts = self._counts.by_process()
        for index, count in enumerate(counts):
            if count < ALONE:
                return index
        return counts.index(min(counts))

    @property
    def is_mine(self) -> bool:
        """Whether this process takes the next connection."""
        return self.next() == self._index

    def ring(self) -> None:
        """Wakes the process whose turn it is."""
        os.eventfd_write(self._bells[self.next()], 1)

    def hear(self) -> None:
        """The bell was heard: it is not readable until it is rung again."""
        with contextlib.suppress(BlockingIOError):  # heard already
            os.eventfd_read(self.bell)


def make_bells(num_processes: int) -> list[int]:
    """Descriptors for `Turns`, made before the processes are forked.

    Raises:
        OSError: none are left.
    """
    return [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(num_processes)]
