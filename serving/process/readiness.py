"""Whether all HTTP processes of a server have had a model to serve.

The processes share a port, and the kernel gives a connection to any of them. So none may report the
server as ready before the last one can make images. Each process sets a byte of a file in memory
that they share; there is no process that could be asked.
"""

import fcntl
import os

from serving.shared_file import SharedFile


class StartupBarrier:
    """Counts the HTTP processes that can make images."""

    def __init__(self, file: SharedFile, index: int, num_processes: int) -> None:
        """What is shared.

        Args:
            file: empty at first; the same in every process.
            index: of this process: 0, 1 ...
            num_processes: how many there are, this one included.
        """
        self._file = file.descriptor
        self._index = index
        self._num_processes = num_processes
        self._complete = False

    def arrive(self) -> bool:
        """Notes that this process has a model; returns True in one process, the last one.

        Raises:
            OSError: there is no memory to say it.
        """
        os.pwrite(self._file, b"\1", self._index)
        if not self.all_arrived():
            return False
        try:  # of two that arrive at once the first to lock it is told; it is never let go
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def all_arrived(self) -> bool:
        """Returns whether all processes have arrived once; a server whose process dies ends."""
        if not self._complete:
            self._complete = os.pread(self._file, self._num_processes, 0) == (
                b"\1" * self._num_processes
            )
        return self._complete
