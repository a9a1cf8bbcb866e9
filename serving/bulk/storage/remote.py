"""A store at any address that fsspec knows. Credentials come from where its library looks for them.

Nothing is appended or renamed there, so object stores need no more than put, get and delete. A file
is made locally first, since most stores want to know a whole object before they keep any of it.
"""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from models.bundle.manifest import FileEntry
from serving.bulk.errors import BulkError, PlanError, TargetError
from serving.bulk.storage.store import NewFile, copy_hashing

_PROBE = ".saddlepoint-probe"


class RemoteStore:
    """Files below an address."""

    def __init__(self, address: str) -> None:
        """Opens a file system.

        Raises:
            PlanError: the protocol is unknown, or what it needs isn't installed.
        """
        self.address = address.rstrip("/")
        self._fs, self._root = _file_system(self.address)

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteStore, (self.address,)  # connections don't travel to other processes

    def prepare(self) -> None:
        """Tries to write."""
        with self._asking("can't be written to"):
            self._in_folder(_PROBE, lambda path: self._fs.pipe_file(path, b""))
            self._fs.rm_file(self._path(_PROBE))

    def lock(self) -> None:
        """Does nothing: a bucket has no locks. Two runs there make the same bytes twice."""

    def unlock(self) -> None:
        """Does nothing."""

    def sweep(self) -> None:
        """Does nothing: what isn't finished is in a temporary file of a process."""

    def holds_others(self) -> bool:
        """True where there is anything but hidden files."""
        with self._asking("can't be listed"):
            self._fs.invalidate_cache()
            if not self._fs.exists(self._root):
                return False
            names = [path.rstrip("/").rpartition("/")[2] for path in self._fs.ls(self._root, False)]
        return any(name and name[0] != "." and name != "lost+found" for name in names)

    @contextlib.contextmanager
    def create(self, name: str, *, sync: bool = True) -> Iterator[NewFile]:
        """A new file, made in a temporary one, then sent whole."""
        with tempfile.NamedTemporaryFile(prefix="saddlepoint-bulk-") as file:
            try:
                new = NewFile(file)
                yield new
                file.flush()
            except OSError as error:
                raise TargetError(
                    f"{tempfile.gettempdir()}: {error.strerror}; a file is made there before it is "
                    "sent: free some space, or set TMPDIR"
                ) from error
            with self._asking(f"{name} can't be written"):
                self._in_folder(name, lambda path: self._fs.put_file(file.name, path))

    def sync(self) -> None:
        """Does nothing: what a store has confirmed is there."""

    def read(self, name: str) -> bytes | None:
        """The whole content of a small file; None where there is none."""
        with self._asking(f"{name} can't be read"):
            try:
                data: bytes = self._fs.cat_file(self._path(name))
                return data
            except (FileNotFoundError, NotADirectoryError):
                return None

    def entry(self, name: str, *, digest: bool) -> FileEntry | None:
        """Size and, if asked, SHA-256 of a file; None where there is none."""
        with self._asking(f"{name} can't be read"):
            self._fs.invalidate_cache()
            try:
                if not digest:
                    return FileEntry(sha256="", size_bytes=int(self._fs.size(self._path(name))))
                with self._fs.open(self._path(name), "rb") as file:
                    return copy_hashing(file)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None

    def remove(self, name: str) -> None:
        """Removes a file or a whole folder, if there is one."""
        with self._asking(f"{name} can't be removed"), contextlib.suppress(FileNotFoundError):
            self._fs.rm(self._path(name), recursive=True)

    def free_bytes(self) -> int | None:
        """A bucket has no end."""
        return None

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _in_folder(self, name: str, write: Callable[[str], Any]) -> None:
        """Writes a file, and makes its folder where the file system has folders.

        Never a bucket: some libraries make that too, and a run that lost its bucket would go on
        in an empty one.
        """
        path = self._path(name)
        try:
            write(path)
        except FileNotFoundError:
            top = "/" if path.startswith("/") else path.partition("/")[0]
            self._fs.invalidate_cache()
            if not self._fs.exists(top):
                raise
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            write(path)

    @contextlib.contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Says whatever a file system raises; their errors share no base."""
        try:
            yield
        except BulkError:
            raise
        except Exception as error:
            reason = str(error) or type(error).__name__
            raise TargetError(
                f"{self.address}: {what}: {reason}; finished shards stay: look at the address, its "
                "rights and credentials, then run the same command again"
            ) from error


def _file_system(address: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError as error:
        raise PlanError(
            f"--out is {address}: that needs fsspec; install it with "
            "pip install '.[remote]' in Saddlepoint's source folder"
        ) from error
    try:
        fs, root = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise PlanError(
            f"--out is {address}: {error}; name a folder, or an address that fsspec knows"
        ) from error
    except Exception as error:
        raise TargetError(f"{address}: can't be opened: {error}") from error
    if "memory" in _protocols(fs):
        raise PlanError(
            f"--out is {address}: memory ends with the process that fills it; name a folder"
        )
    return fs, str(root).rstrip(os.sep)


def _protocols(fs: Any) -> tuple[str, ...]:
    protocol = fs.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)
