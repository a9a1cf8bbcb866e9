"""Models that were taken out of service, by name: what all processes of a server agree upon.

They lie in memory that the processes share, and so hold until the server ends, whoever of them
dies. Any process may write, under a lock; who reads takes none, and sees by a checksum whether a
writer came between.
"""

import contextlib
import fcntl
import json
import os
import struct
import threading
import time
import zlib
from collections.abc import Iterator

from serving.errors import UnavailableProblem
from serving.shared_file import SharedFile

_HEAD = struct.Struct("<II")  # checksum, length
_WAIT_S = 2.0
_MAX_LOOKS = 50


class Withdrawn:
    """The names."""

    def __init__(self, file: SharedFile) -> None:
        """file: empty at first; the same in every process."""
        self._file = file
        self._lock = threading.Lock()
        self._last: frozenset[str] = frozenset()

    def names(self) -> frozenset[str]:
        """All of them."""
        for _ in range(_MAX_LOOKS):
            data = os.pread(self._file.descriptor, os.fstat(self._file.descriptor).st_size, 0)
            if not data:
                break
            checksum, length = _HEAD.unpack_from(data)
            content = data[_HEAD.size : _HEAD.size + length]
            if zlib.crc32(content) == checksum and len(content) == length:
                self._last = frozenset(json.loads(content))
                break
            time.sleep(0.001)  # somebody is writing
        return self._last

    def __contains__(self, name: str) -> bool:
        return name in self.names()

    def add(self, name: str) -> None:
        """Takes a model out of service.

        Raises:
            UnavailableProblem: that can't be written down.
        """
        with self._changing():
            self._write(self.names() | {name})

    def remove(self, name: str) -> None:
        """Puts a model into service again.

        Raises:
            UnavailableProblem: that can't be written down.
        """
        with self._changing():
            self._write(self.names() - {name})

    def _write(self, names: frozenset[str]) -> None:
        content = json.dumps(sorted(names)).encode("ascii")
        data = _HEAD.pack(zlib.crc32(content), len(content)) + content
        try:
            os.posix_fallocate(self._file.descriptor, 0, len(data))
            os.pwrite(self._file.descriptor, data, 0)
        except OSError as error:
            raise UnavailableProblem(
                f"the server can't write down which models are out of service: {error}; "
                "ask again in a moment"
            ) from error
        self._last = names

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """One change at a time, over all threads and processes; waits for none that is stopped."""
        until = time.monotonic() + _WAIT_S
        if not self._lock.acquire(timeout=_WAIT_S):
            raise _busy()
        try:
            while True:
                try:
                    fcntl.lockf(self._file.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    if time.monotonic() > until:
                        raise _busy() from None
                    time.sleep(0.005)
            try:
                yield
            finally:
                fcntl.lockf(self._file.descriptor, fcntl.LOCK_UN)
        finally:
            self._lock.release()


def _busy() -> UnavailableProblem:
    return UnavailableProblem(
        "another process of this server is changing which models are in service, and doesn't get "
        "on; ask again in a moment"
    )
