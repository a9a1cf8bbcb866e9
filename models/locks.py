"""Who may change a model's folder, and which of its versions someone is using.

Writers take turns through a lock file. Whoever runs a version holds a lease of it, a shared lock of
its manifest; whoever wants to remove it asks for an exclusive one. The kernel drops both when a
process ends, however it ends. On a file system without locks a lease protects nothing.
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

from models.bundle import MANIFEST
from models.errors import BundleError, NotInRepositoryError, RepositoryError
from models.files import IrregularFileError, open_regular

STAGING = ".staging-"
"""What is not a version yet, or no longer: the next writer clears it away."""
_LOCK = ".lock"
_LOCK_TIMEOUT_S = 30.0


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[Path]:
    """The model's folder, locked, and cleared of what a killed writer left.

    Raises:
        RepositoryError: it can't be written, or another process goes on writing.
    """
    with looking(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / _LOCK).open("w", encoding="ascii") as lock:
            _take(lock.fileno(), folder)
            _clear(folder)
            try:
                yield folder
            finally:
                _clear(folder)


@contextlib.contextmanager
def looking(folder: Path) -> Iterator[Path]:
    """The model's folder as it is: nothing is written, and writers go on.

    Raises:
        RepositoryError: it can't be read.
    """
    try:
        yield folder
    except OSError as error:
        raise RepositoryError(f"{error.filename or folder}: {error.strerror}") from error


class Lease:
    """A version that must stay while it is used."""

    def __init__(self, version: Path) -> None:
        """version: the bundle's folder.

        Raises:
            NotInRepositoryError: it is gone, or is being removed.
            BundleError: its manifest is a link, or no file at all.
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
            held = os.fstat(file.fileno())
            if not os.path.samestat(held, (version / MANIFEST).stat()):
                raise FileNotFoundError
        except (BlockingIOError, FileNotFoundError) as error:
            file.close()
            raise NotInRepositoryError(gone) from error
        except OSError:  # no locks here
            file.close()
        else:
            self._file = file

    def end(self) -> None:
        """It may go."""
        if self._file is not None:
            self._file.close()
            self._file = None


@contextlib.contextmanager
def nobody_using(version: Path, *, dry_run: bool = False) -> Iterator[bool]:
    """True where no process holds a lease of a version, and none can get one meanwhile.

    dry_run: asks on a volume that can't be written, too.
    """
    try:
        file = _open_to_lock(version / MANIFEST, dry_run=dry_run)
    except (FileNotFoundError, IrregularFileError):
        yield True  # no manifest, no bundle: nobody can use it
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:  # no locks here: nobody could say so
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
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise RepositoryError(
                    f"{folder}: another process has been writing for {_LOCK_TIMEOUT_S:.0f} s"
                ) from None
            time.sleep(0.05)
        else:
            return
