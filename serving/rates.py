"""Token buckets that the HTTP processes share: how many images a key may still ask for now.

A key's bucket holds at most `burst` images and fills at `rows_per_s`. It lies in a file of the
server's own folder, a record a key, and is changed under a lock of its record: the limit is one,
however many processes a client's connections reach. The kernel drops the lock of a process that
dies.
"""

import fcntl
import math
import os
import struct
import time
from pathlib import Path

from serving.keys import Key

_RECORD = struct.Struct("<32sdd")  # digest, images in the bucket, when that was so
_BUCKET = struct.Struct("<dd")
_BUCKET_START = 32


class Rates:
    """The buckets; one object a process, made where it is used (locks belong to a process)."""

    def __init__(self, path: Path) -> None:
        """path: the file; whoever comes first makes it."""
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._starts: dict[bytes, int] = {}

    def take(self, key: Key, num_rows: int) -> float:
        """Takes images from a key's bucket; gives 0, or else the seconds until so many are in it.

        num_rows: at most the key's burst, or it will never do.
        """
        assert key.rows_per_s is not None
        start = self._start(key)
        fcntl.lockf(self._file, fcntl.LOCK_EX, _RECORD.size, start)
        try:
            # One clock for all processes of the machine.
            now = time.monotonic()
            held: float
            held, then = _BUCKET.unpack(os.pread(self._file, _BUCKET.size, start + _BUCKET_START))
            held = min(key.burst, held + max(0.0, now - then) * key.rows_per_s)
            missing = num_rows - held
            if missing <= 0:
                held -= num_rows
            os.pwrite(self._file, _BUCKET.pack(held, now), start + _BUCKET_START)
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, _RECORD.size, start)
        return max(0.0, missing / key.rows_per_s)

    def close(self) -> None:
        """Lets the file go."""
        os.close(self._file)

    def _start(self, key: Key) -> int:
        """Where a key's record begins; a key that has none yet gets one, with a full bucket."""
        start = self._starts.get(key.digest)
        if start is None:
            fcntl.lockf(self._file, fcntl.LOCK_EX)
            try:
                start = self._find(key)
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN)
            self._starts[key.digest] = start
        return start

    def _find(self, key: Key) -> int:
        size = os.fstat(self._file).st_size
        records = os.pread(self._file, size, 0)
        for start in range(0, size, _RECORD.size):
            if records[start : start + _BUCKET_START] == key.digest:
                return start
        os.pwrite(self._file, _RECORD.pack(key.digest, math.inf, 0.0), size)
        return size
