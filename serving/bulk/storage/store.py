"""Where the files go: a local folder, or any address that fsspec knows (s3://, gs://, hf:// ...).

A file is there whole or not at all: it is written under a hidden name, and gets its own when the
disk has all of it. Object stores show an object when it is complete; there a file is first made in
the folder for temporary files.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol

import msgspec

from models.bundle import sync_folder
from models.bundle.manifest import FileEntry
from serving.bulk.errors import PlanError, TargetError

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
_HIDDEN = ".saddlepoint-"
_OTHERS = {"lost+found"}  # what a fresh volume holds


class StoredFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file with its digest, as manifest and receipts list it."""

    name: str
    """Path below the target, with forward slashes."""
    sha256: str
    size_bytes: int


class NewFile:
    """A file that is being written; counts and hashes what goes into it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: "bytes | bytearray | memoryview") -> int:
        """Appends bytes."""
        self._file.write(data)
        self._hash.update(data)
        self.size_bytes += len(data)
        return len(data)

    # What pyarrow asks of a file.
    closed = False

    def tell(self) -> int:
        """Number of bytes so far."""
        return self.size_bytes

    def flush(self) -> None:
        """Does nothing: the store flushes at the end."""

    def close(self) -> None:
        """Does nothing: the store closes at the end."""

    def entry(self, name: str) -> StoredFile:
        """What a manifest says of it."""
        return StoredFile(name=name, sha256=self._hash.hexdigest(), size_bytes=self.size_bytes)


class Store(Protocol):
    """A place for files. Names are paths below it, with forward slashes."""

    address: str

    def prepare(self) -> None:
        """Makes the place and tries to write."""
        ...

    def lock(self) -> None:
        """Keeps other runs out, as far as the place allows it."""
        ...

    def unlock(self) -> None:
        """Lets other runs in; the end of the process does it too."""
        ...

    def sweep(self) -> None:
        """Removes files that were never finished."""
        ...

    def holds_others(self) -> bool:
        """True where there is anything but hidden files."""
        ...

    def create(self, name: str, *, sync: bool = True) -> contextlib.AbstractContextManager[NewFile]:
        """A new file, whole under its name when the block ends, and gone if it raises.

        sync: False leaves it to `sync` to wait for the disk.
        """
        ...

    def sync(self) -> None:
        """Waits until the disk has all that was written."""
        ...

    def read(self, name: str) -> bytes | None:
        """The whole content of a small file; None where there is none."""
        ...

    def entry(self, name: str, *, digest: bool) -> FileEntry | None:
        """Size and, if asked, SHA-256 of a file; None where there is none."""
        ...

    def remove(self, name: str) -> None:
        """Removes a file or a whole folder, if there is one."""
        ...

    def free_bytes(self) -> int | None:
        """What still fits; None where nobody can tell."""
        ...


def write_file(store: Store, name: str, data: bytes) -> None:
    """Writes a small file."""
    with store.create(name) as file:
        file.write(data)


class LocalStore:
    """A folder."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.address = str(root)

    def __reduce__(self) -> tuple[Any, ...]:
        return LocalStore, (self.root,)  # a lock stays with the process that has it

    def lock(self) -> None:
        """Takes the folder for this process; the system gives it back when the process ends."""
        self._descriptor = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise PlanError(
                f"--out is {self.address}: another run is writing there; wait for its end"
            ) from error
        except OSError:  # a file system without locks
            logger.info("%s can't be locked; don't start two runs there", self.address)

    def unlock(self) -> None:
        """Lets other runs in."""
        os.close(self._descriptor)

    def prepare(self) -> None:
        """Makes the folder and tries to write into it."""
        if self.root.exists() and not self.root.is_dir():
            raise PlanError(f"--out is {self.address}: that is no folder; name another place")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root, prefix=_HIDDEN):
                pass
        except OSError as error:
            raise TargetError(
                f"--out is {self.address}: {error.strerror}; name a folder that can be written to"
            ) from error

    def sweep(self) -> None:
        """Removes files that were never finished."""
        for folder, _, names in os.walk(self.root):
            for name in names:
                if name.startswith(_HIDDEN) and name.endswith(".part"):
                    Path(folder, name).unlink(missing_ok=True)

    def holds_others(self) -> bool:
        """True where there is anything but hidden files."""
        if not self.root.is_dir():
            return False
        with os.scandir(self.root) as entries:
            return any(e.name[0] != "." and e.name not in _OTHERS for e in entries)

    @contextlib.contextmanager
    def create(self, name: str, *, sync: bool = True) -> Iterator[NewFile]:
        """A new file under a hidden name, which gets its own at the end."""
        path = self.root / name
        temporary = path.with_name(f"{_HIDDEN}{path.name}-{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                yield NewFile(file)
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            temporary.replace(path)
            if sync:
                sync_folder(path.parent)
        except BaseException as error:
            with contextlib.suppress(OSError):  # it may not even be there
                temporary.unlink()
            if isinstance(error, OSError):
                raise self._failed(path, error) from error
            raise

    def sync(self) -> None:
        """Waits until the disk has all that was written.

        One wait for the file system is a thousand times faster than one for each small file.
        """
        try:
            descriptor = os.open(self.root, os.O_RDONLY)
            try:
                if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
                    code = ctypes.get_errno()
                    raise OSError(code, os.strerror(code))
            finally:
                os.close(descriptor)
        except AttributeError:  # no Linux: there is only a wait for all file systems
            os.sync()
        except OSError as error:
            raise self._failed(self.root, error) from error

    def read(self, name: str) -> bytes | None:
        """The whole content of a small file; None where there is none."""
        try:
            return (self.root / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._failed(self.root / name, error) from error

    def entry(self, name: str, *, digest: bool) -> FileEntry | None:
        """Size and, if asked, SHA-256 of a file; None where there is none."""
        try:
            with (self.root / name).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                sha256 = hashlib.file_digest(file, "sha256").hexdigest() if digest else ""
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except OSError as error:
            raise self._failed(self.root / name, error) from error
        return FileEntry(sha256=sha256, size_bytes=size)

    def remove(self, name: str) -> None:
        """Removes a file or a whole folder, if there is one."""
        path = self.root / name
        try:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise self._failed(path, error) from error

    def free_bytes(self) -> int | None:
        """What still fits on the disk."""
        place = self.root
        while not place.exists():
            place = place.parent
        return shutil.disk_usage(place).free

    def _failed(self, path: Path, error: OSError) -> TargetError:
        return TargetError(
            f"{path}: {error.strerror or error}; finished shards stay: mend it, then run the same "
            "command again"
        )


def copy_hashing(file: IO[Any]) -> FileEntry:
    """Size and SHA-256 of what is left in a file."""
    found = hashlib.sha256()
    size = 0
    while chunk := file.read(_CHUNK_BYTES):
        found.update(chunk)
        size += len(chunk)
    return FileEntry(sha256=found.hexdigest(), size_bytes=size)
