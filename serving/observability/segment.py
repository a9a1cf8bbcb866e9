"""The file in memory in which one process shows its values to the others.

A head, then keys and values, one after the other; only ever appended to, so a reader sees a whole
entry or none. Pages are reserved before they are written: one that isn't there would end the
process by SIGBUS.
"""

import contextlib
import mmap
import os
import struct
from collections.abc import Iterator

from serving.shared_file import SharedFile

_HEAD = struct.Struct("<qqq")  # bytes in use, the process, the number of changes (of the dead's)
_LENGTH = struct.Struct("<q")
_VALUE = struct.Struct("<d")
_RESERVED = 1 << 16
_CHANGES_START = 16


class Segment:
    """The file of one process: a head, then keys and values, one after the other.

    Written through a map by the process that it is of; read by others as a file.
    """

    def __init__(self, purpose: str) -> None:
        """Raises OSError where there is none to be had."""
        self._file = SharedFile(f"metrics-{purpose}")
        self._map: mmap.mmap | None = None
        self._used = self._pid = 0

    def __getstate__(self) -> SharedFile:
        """The file alone: maps are each process's own."""
        return self._file

    def __setstate__(self, file: SharedFile) -> None:
        self._file, self._map = file, None
        self._used = self._pid = 0

    def begin(self, pid: int) -> None:
        """Empties it, for a process."""
        self._map, self._pid = None, pid
        with contextlib.suppress(OSError):  # what is appended tries again
            self._reserve(_RESERVED)

    def append(self, key: bytes, value: float) -> int:
        """Adds a value; gives where it is.

        Raises:
            OSError: there is no memory for it.
        """
        padded = key + b" " * (-len(key) % _LENGTH.size)
        entry = _LENGTH.pack(len(padded)) + padded + _VALUE.pack(value)
        if self._map is None:
            self._reserve(_RESERVED)
        assert self._map is not None
        while (end := self._used + len(entry)) > len(self._map):
            self._reserve(2 * len(self._map))
        self._map[self._used : end] = entry
        # Last: a reader sees the whole entry, or none.
        self._map[: _LENGTH.size] = _LENGTH.pack(end)
        self._used = end
        return end - _VALUE.size

    def put(self, start: int, value: float) -> None:
        """Writes a value: eight bytes at a multiple of eight, which nobody sees halves of."""
        assert self._map is not None
        self._map[start : start + _VALUE.size] = _VALUE.pack(value)

    def clear(self) -> None:
        """Forgets what it holds; its process is dead."""
        os.pwrite(self._file.descriptor, _HEAD.pack(0, 0, 0), 0)

    def count_change(self) -> None:
        """The dead's: odd while they are being moved, even else."""
        head = os.pread(self._file.descriptor, _HEAD.size, 0).ljust(_HEAD.size, b"\0")
        changes = _HEAD.unpack(head)[2]
        os.pwrite(self._file.descriptor, _LENGTH.pack(changes + 1), _CHANGES_START)

    def num_changes(self) -> int:
        """How often `count_change` was called."""
        head = os.pread(self._file.descriptor, _HEAD.size, 0)
        return int(_HEAD.unpack(head)[2]) if len(head) == _HEAD.size else 0

    def pid(self) -> int:
        """The process that it is of; 0 where it is no one's."""
        head = os.pread(self._file.descriptor, _HEAD.size, 0)
        return int(_HEAD.unpack(head)[1]) if len(head) == _HEAD.size else 0

    def read(self) -> Iterator[tuple[bytes, float, int]]:
        """Keys, values, and where these are."""
        head = os.pread(self._file.descriptor, _HEAD.size, 0)
        if len(head) < _HEAD.size:
            return
        used = _HEAD.unpack(head)[0]
        data = os.pread(self._file.descriptor, used, 0)
        start = _HEAD.size
        while start + _LENGTH.size <= len(data):
            (length,) = _LENGTH.unpack_from(data, start)
            end = start + _LENGTH.size + length
            yield data[start + _LENGTH.size : end], _VALUE.unpack_from(data, end)[0], end
            start = end + _VALUE.size

    def _reserve(self, size: int) -> None:
        """Grows to so many bytes; at the first time it begins.

        Raises:
            OSError: there is no memory for it.
        """
        # A page that isn't there when it is written to would end the process by SIGBUS.
        os.posix_fallocate(self._file.descriptor, 0, size)
        begins = self._map is None
        self._map = mmap.mmap(self._file.descriptor, size)
        if begins:
            self._used = _HEAD.size
            self._map[:_CHANGES_START] = _HEAD.pack(self._used, self._pid, 0)[:_CHANGES_START]
