"""A number of each of several processes, which all of them can read at any time."""

import mmap
import os

from serving.shared_file import SharedFile


class SharedCounts:
    """The numbers, one of which is this process's own."""

    def __init__(self, file: SharedFile, index: int, num_processes: int) -> None:
        """All are 0 at first.

        Args:
            file: empty at first; the same in every process.
            index: of this process: 0, 1 ...
            num_processes: how many there are, this one included.

        Raises:
            OSError: there is no memory for them.
        """
        size = 8 * num_processes
        os.posix_fallocate(file.descriptor, 0, size)  # here, and not at a write, which would kill
        self._all = memoryview(mmap.mmap(file.descriptor, size)).cast("q")
        self._index = index

    @property
    def own(self) -> int:
        """This process's number; to be set."""
        return self._all[self._index]

    @own.setter
    def own(self, number: int) -> None:
        self._all[self._index] = number

    @property
    def others(self) -> int:
        """The sum of the numbers of all other processes."""
        return sum(self._all) - self._all[self._index]

    def by_process(self) -> list[int]:
        """The numbers, in the order of the processes."""
        return self._all.tolist()
