"""Token buckets that the HTTP processes share: how many images a key may ask for now.

A key's bucket holds at most `burst` images and fills at `rows_per_s`. The buckets are records of
one file that the processes share, each changed under a lock of its record. So a key has one limit,
however many processes its connections reach. When a process dies, the kernel drops its locks. For
one that is stopped while it holds a lock nobody waits long: a bucket may then be off by what two
processes took at once.
"""

import contextlib
import fcntl
import math
import os
import struct
import time
from collections.abc import Iterator

from serving.keys.key import Key

_RECORD = struct.Struct("<32sdd")  # key's holder, images in the bucket, when that was so
_BUCKET = struct.Struct("<dd")
_BUCKET_START = 32
_WAIT_S = 0.25
_STUCK_S = 10.0


class RateLimiter:
    """The buckets of all keys; each process makes its own object, as file locks belong to it."""

    def __init__(self, descriptor: int) -> None:
        """descriptor: of the file, which stays open."""
        self._file = descriptor
        self._starts: dict[bytes, int] = {}
        self._own: dict[bytes, tuple[float, float]] = {}  # where there is no room for a record
        self._stuck_until = 0.0

    def take(self, key: Key, num_rows: int) -> float:
        """Takes images out of a key's bucket, if it has enough.

        num_rows: at most the key's burst.

        Returns:
            0 if they were taken, or else the seconds until the bucket will have so many.
        """
        assert key.rows_per_s is not None
        try:
            start = self._start(key)
        except OSError:  # no memory: this process's bucket is better than none
            bucket, wait_s = _taken(key, num_rows, *self._own.get(key.holder, (math.inf, 0.0)))
            self._own[key.holder] = bucket
            return wait_s
        with self._locked(start):
            data = os.pread(self._file, _BUCKET.size, start + _BUCKET_START)
            bucket, wait_s = _taken(key, num_rows, *_BUCKET.unpack(data))
            os.pwrite(self._file, _BUCKET.pack(*bucket), start + _BUCKET_START)
        return wait_s

    def _start(self, key: Key) -> int:
        """Returns where a key's record begins; a key without one gets one, with a full bucket."""
        start = self._starts.get(key.holder)
        if start is None:
            with self._locked(0, 0):
                start = self._starts[key.holder] = self._find(key)
        return start

    @contextlib.contextmanager
    def _locked(self, start: int, num_bytes: int = _RECORD.size) -> Iterator[None]:
        """Holds the lock of a record (or of all: num_bytes 0), if it can be had in time."""
        began = time.perf_counter()
        while True:
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, num_bytes, start)
                break
            except OSError:
                now = time.perf_counter()
                if now - began > _WAIT_S:
                    self._stuck_until = now + _STUCK_S
                if now < self._stuck_until:
                    break
                time.sleep(0.0005)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, num_bytes, start)

    def _find(self, key: Key) -> int:
        size = os.fstat(self._file).st_size
        records = os.pread(self._file, size, 0)
        for start in range(0, size, _RECORD.size):
            if records[start : start + _BUCKET_START] == key.holder:
                return start
        os.pwrite(self._file, _RECORD.pack(key.holder, math.inf, 0.0), size)
        return size


def _taken(key: Key, num_rows: int, held: float, then: float) -> tuple[tuple[float, float], float]:
    """A bucket after images were taken from it, if there were enough, and the seconds to wait."""
    assert key.rows_per_s is not None
    now = time.monotonic()  # one clock for all processes of the machine
    held = min(key.burst, held + max(0.0, now - then) * key.rows_per_s)
    missing = num_rows - held
    return (held if missing > 0 else held - num_rows, now), max(0.0, missing / key.rows_per_s)
