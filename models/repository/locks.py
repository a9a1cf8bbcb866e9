"""File locks: one writer at a time in a model's folder, and versions that are in use stay.

Writers lock a file of the folder. A process that runs a version holds a shared lock on its
manifest; a process that removes a version needs an exclusive lock. The kernel releases both when a
process ends, even if it is killed. On a file system without locks, nothing protects a version.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from models.bundle.bundle import MANIFEST
from models.bundle.files import IrregularFileError, open_regular
from models.errors import BundleError, NotInRepositoryError, RepositoryError

STAGING = ".staging-"
"""Prefix of what is not a version yet, or no longer. The next writer removes it."""
_LOCK = ".lock"
_LOCK_TIMEOUT_S = 30.0


@contextlib.contextmanager
def write_lock(folder: Path) -> Iterator[Path]:
    """Locks a model's folder for writing and removes what a killed writer left.

    Raises:
        RepositoryError: it can't be written, or another process holds the lock for too long.
    """
    with without_lock(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / _LOCK).open("w", encoding="ascii") as lock:
            _take(lock.fileno(), folder)
            _clear(folder)
            try:
                yield folder
            finally:
                _clear(folder)


@contextlib.contextmanager
def without_lock(folder: Path) -> Iterator[Path]:
    """Gives a model's folder for reading: takes no lock and writes nothing.

    Raises:
        RepositoryError: a file of it can't be used.
    """
    try:
        yield folder
    except OSError as error:
        raise RepositoryError(f"{error.filename or folder}: {error.strerror}") from error


class SharedLock:
    """Keeps a version from being removed while it is used."""

    def __init__(self, version: Path) -> None:
        """Takes the lock. version: the bundle's folder.

        Raises:
            NotInRepositoryError: the version is gone, or is being removed.
            BundleError: its manifest is not a regular file.
        """
        self._file: BinaryIO | None = None
        gone = f"{version}: was removed; ask for another version"
        try:
            file = open_regular(version / MANIFEST)
        except IrregularFileError as error:
            raise BundleError(
                f"{error.filename}: {error.strerror}; publish the model again"
            ) from error
        except OSError as error:
            raise NotInRepositoryError(gone) from error
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            # A version that was renamed away before the lock was taken leaves a lock on nothing.
            held = os.fstat(file.fileno())
            if not os.path.samestat(held, (version / MANIFEST).stat()):
                raise FileNotFoundError
        except (BlockingIOError, FileNotFoundError) as error:
            file.close()
            raise NotInRepositoryError(gone) from error
        except OSError:  # a file system without locks: the version is used unprotected
            file.close()
        else:
            self._file = file

    def release(self) -> None:
        """Releases the lock; a second call does nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None


@contextlib.contextmanager
def exclusive_lock(version: Path, *, dry_run: bool = False) -> Iterator[bool]:
    """Tries to lock a version exclusively; gives False where a process is using it.

    dry_run: works on a volume that can't be written, too.
    """
    try:
        file = _open_to_lock(version / MANIFEST, dry_run=dry_run)
    except (FileNotFoundError, IrregularFileError):
        yield True  # without a manifest there is no bundle that a process could use
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:  # a file system without locks: no process could have taken one
            pass
        yield True


def _open_to_lock(manifest: Path, *, dry_run: bool) -> BinaryIO:
    try:
        return open_regular(manifest, "r+b")  # NFS wants a writer for an exclusive lock
    except OSError as error:
        if not dry_run or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return open_regular(manifest)


def _clear(folder: Path) -> None:
    for left in folder.glob(f"{STAGING}*"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()


def _take(descriptor: int, folder: Path) -> None:
    # flock waits without a limit, so it is asked again and again until the deadline.
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise RepositoryError(
                    f"{folder}: another process has been writing to it for "
                    f"{_LOCK_TIMEOUT_S:.0f} s; try again when it has ended"
                ) from None
            time.sleep(0.05)
        else:
            return
