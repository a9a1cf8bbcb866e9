"""Memory that the processes of one server share: a file without a name, handed on to children.

It lies in no folder, so nothing outside can fill its disk up, sweep it away or cut it short, and it
ends with the last process that has it. Forked processes have it, spawned ones get it as an
argument of theirs.
"""

import os
import tempfile
from multiprocessing import reduction
from typing import Any


class SharedFile:
    """An open file that has no name."""

    def __init__(self, purpose: str) -> None:
        """purpose: what /proc shows.

        Raises:
            OSError: neither memory nor TMPDIR gives one.
        """
        try:
            self.descriptor = os.memfd_create(f"saddlepoint-{purpose}", os.MFD_CLOEXEC)
        except OSError:  # a sandbox that has none: a file that is removed at once does as well
            with tempfile.TemporaryFile() as file:
                self.descriptor = os.dup(file.fileno())

    def __reduce__(self) -> tuple[Any, ...]:
        """To a process that is being spawned, and nowhere else."""
        return _received, (reduction.DupFd(self.descriptor),)


def _received(descriptor: Any) -> SharedFile:
    shared = SharedFile.__new__(SharedFile)
    shared.descriptor = descriptor.detach()
    return shared
