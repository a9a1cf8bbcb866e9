"""Copies a repository from elsewhere (`s3://bucket/models`, any address of fsspec) to a folder.

The server serves the folder, as it serves any: what is here has its digests verified, appears by
one rename, and stays while the other side can't be reached. Copied are the versions that CURRENT
and CANDIDATE name; what was copied before stays as long as it is there too. A version that is
another one now, by its manifest, is copied again under the same number.
"""

import contextlib
import fcntl
import functools
import hashlib
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from models.bundle.bundle import MANIFEST, Bundle
from models.bundle.manifest import decode
from models.errors import ModelError, RepositoryError
from models.repository import check_name
from serving.errors import SettingsError

logger = logging.getLogger(__name__)

CURRENT, CANDIDATE = "CURRENT", "CANDIDATE"
_COMING = ".coming-"
_GOING = ".going-"
_LOCK = ".lock"  # and with it the sign that a folder is a copy
_MAX_TEXT = 1000
_MAX_MANIFEST = 16 << 20
_PIECE_BYTES = 4 << 20


class MirrorError(Exception):
    """The other side can't be read, or holds something that can't be used; its text says what."""


class Mirror:
    """A repository elsewhere, and the folder that is kept like it."""

    def __init__(self, address: str, folder: Path, models: tuple[str, ...] = ()) -> None:
        """Sets up; makes the folder.

        Args:
            address: of the repository elsewhere.
            folder: where it is copied to.
            models: names to copy; none for all.

        Raises:
            SettingsError: fsspec or the library of the protocol is missing, or the folder can't be
                made.
        """
        self.address = address.rstrip("/")
        self._folder = folder
        self._models = models
        check_address(address)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(
                f"--repository is {folder}, the copy of {address}: {error.strerror}; name a folder "
                "that this user may write to, with --repository FOLDER --mirror ADDRESS"
            ) from error
        if (found := _models_of(folder)) and not (folder / _LOCK).exists():
            raise SettingsError(
                f"--repository is {folder}, which holds {', '.join(found[:3])} and is no copy of "
                f"{address}: what isn't there would be removed here; name an empty folder"
            )

    @functools.cached_property
    def _opened(self) -> tuple[Any, str]:
        import fsspec

        # Made when it is first used: its threads would not outlive a fork.
        fs, root = fsspec.core.url_to_fs(self.address)
        return fs, str(root).rstrip("/")

    def turn(self) -> None:
        """Makes the folder like the other side.

        Raises:
            MirrorError: that can't be read, or one of its models can't be used; the others are
                copied first.
        """
        with self._alone() as is_alone:
            if is_alone:
                self._copy_all()

    def _copy_all(self) -> None:
        fs, root = self._asked(lambda: self._opened)
        self._asked(fs.invalidate_cache)
        names = self._models or tuple(self._names(fs, root))
        if not names:
            raise MirrorError(f"{self.address} holds no models; what was copied before is served")
        faults = []
        for name in names:
            try:
                self._copy_model(name)
            except (MirrorError, ModelError, OSError) as error:
                faults.append(f"{name}: {error}")
        if not self._models:
            self._remove_others(names)
        if faults:
            raise MirrorError("; ".join(faults))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        """False where another server of this machine copies to the same folder just now."""
        descriptor = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield True
        except BlockingIOError:
            yield False
        finally:
            os.close(descriptor)

    def _names(self, fs: Any, root: str) -> list[str]:
        entries = self._asked(lambda: fs.ls(root, detail=True))
        found = []
        for entry in entries:
            name = entry["name"].rstrip("/").rpartition("/")[2]
            with contextlib.suppress(RepositoryError):
                if entry["type"] == "directory":
                    found.append(check_name(name))
        return sorted(found)

    def _copy_model(self, name: str) -> None:
        folder = self._folder / check_name(name)
        folder.mkdir(exist_ok=True)
        self._sweep(folder)
        current, candidate = self._text(f"{name}/{CURRENT}"), self._text(f"{name}/{CANDIDATE}")
        there = self._versions(name)
        if not there:
            raise MirrorError(f"{self.address}/{name} holds no version")
        # Each is told only when what it names is here. A fault of one doesn't hold up the other.
        faults: list[Exception] = []
        chosen = _number(current)
        newest_first = sorted(there, reverse=True) if chosen is None else [chosen]
        for version in newest_first:
            if self._has_copied(name, version, there, faults):
                _keep_like(folder / CURRENT, current or f"{version}\n")
                break
        tried = _number(candidate)
        if tried is None or self._has_copied(name, tried, there, faults):
            _keep_like(folder / CANDIDATE, candidate)
        if faults:
            raise MirrorError("; ".join(map(str, faults)))
        for version in _local_versions(folder) - there:
            self._remove(folder / str(version))

    def _has_copied(
        self, name: str, version: int, there: set[int], faults: list[Exception]
    ) -> bool:
        """Copies a version; False where that can't be done, with the reason among the faults."""
        try:
            if version not in there:
                raise MirrorError(f"{self.address}/{name} has no version {version}, which it names")
            self._copy_version(name, version)
        except (MirrorError, ModelError, OSError) as error:
            faults.append(error)
            return False
        return True

    def _copy_version(self, name: str, version: int) -> None:
        """Copies a version, unless it is here already, by its manifest."""
        target = self._folder / name / str(version)
        path = f"{name}/{version}"
        manifest = self._bytes(f"{path}/{MANIFEST}", _MAX_MANIFEST)
        if manifest is None:
            raise MirrorError(f"{self.address}/{path} has no {MANIFEST}")
        with contextlib.suppress(OSError):
            if (target / MANIFEST).read_bytes() == manifest:
                return
        described = decode(manifest, f"{self.address}/{path}/{MANIFEST}")
        coming = target.with_name(f"{_COMING}{version}")
        shutil.rmtree(coming, ignore_errors=True)
        coming.mkdir()
        for file, entry in described.files.items():
            if Path(file).name != file or file in (".", ".."):
                raise MirrorError(f"{self.address}/{path}: {file!r} is no name of a file")
            self._download(f"{path}/{file}", coming / file, entry.size_bytes)
        (coming / MANIFEST).write_bytes(manifest)
        try:
            Bundle.open(coming).verify_files()
        except ModelError:
            shutil.rmtree(coming, ignore_errors=True)
            raise
        if target.exists():
            self._remove(target)
        coming.rename(target)
        digest = hashlib.sha256(manifest).hexdigest()
        logger.info("%s version %d was copied from %s: %s", name, version, self.address, digest)

    def _download(self, path: str, target: Path, num_bytes: int) -> None:
        fs, root = self._opened

        def copy() -> None:
            left = num_bytes
            with fs.open(f"{root}/{path}", "rb") as source, target.open("wb") as file:
                while piece := source.read(min(_PIECE_BYTES, left + 1)):
                    left -= len(piece)
                    if left < 0:
                        raise MirrorError(f"{self.address}/{path} is longer than its manifest says")
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())

        self._asked(copy)

    def _versions(self, name: str) -> set[int]:
        fs, root = self._opened
        entries = self._asked(lambda: fs.ls(f"{root}/{name}", detail=True))
        words = (entry["name"].rstrip("/").rpartition("/")[2] for entry in entries)
        return {int(word) for word in words if word.isdecimal() and word.isascii()}

    def _text(self, path: str) -> str | None:
        data = self._bytes(path, _MAX_TEXT)
        return None if data is None else data.decode("ascii", "replace")

    def _bytes(self, path: str, most: int) -> bytes | None:
        """What a small file holds; None where there is none."""
        fs, root = self._opened

        def read() -> bytes | None:
            try:
                data: bytes = fs.cat_file(f"{root}/{path}", start=0, end=most)
            except FileNotFoundError:
                return None
            return data

        found: bytes | None = self._asked(read)
        return found

    def _asked(self, ask: Any) -> Any:
        """The other side's answer; its libraries raise whatever they like."""
        try:
            return ask()
        except (MirrorError, ModelError):
            raise
        except Exception as error:
            raise MirrorError(
                f"{self.address} can't be read: {error or type(error).__name__}; what was copied "
                "before is served"
            ) from error

    def _remove_others(self, names: tuple[str, ...]) -> None:
        """Removes models that are gone on the other side, which has told all that it has."""
        for name in _models_of(self._folder):
            if name not in names:
                self._remove(self._folder / name)

    def _sweep(self, folder: Path) -> None:
        for entry in folder.iterdir():
            if entry.name.startswith((_COMING, _GOING)):
                shutil.rmtree(entry, ignore_errors=True)

    @staticmethod
    def _remove(path: Path) -> None:
        """In one step, as those see it who look: workers have in memory what they serve."""
        going = path.with_name(f"{_GOING}{path.name}")
        shutil.rmtree(going, ignore_errors=True)
        path.rename(going)
        shutil.rmtree(going, ignore_errors=True)


def check_address(address: str) -> None:
    """Raises SettingsError where nothing can be read from such an address."""
    try:
        import fsspec
    except ImportError as error:
        raise SettingsError(
            f"the repository is {address}: that needs fsspec; install it with pip install "
            "'.[remote]' in Saddlepoint's source folder, and the library of its store: s3fs, "
            "gcsfs, adlfs ..."
        ) from error
    protocol = address.partition("://")[0]
    try:
        fsspec.get_filesystem_class(protocol)
    except (ImportError, ValueError) as error:
        raise SettingsError(
            f"the repository is {address}: {error}; name a folder, or an address that fsspec knows"
        ) from error


def _number(text: str | None) -> int | None:
    """The version that CURRENT or CANDIDATE names."""
    word = (text or "").split()[:1]
    return int(word[0]) if word and word[0].isascii() and word[0].isdecimal() else None


def _models_of(folder: Path) -> list[str]:
    """Folders that may be models'; a file system's own, such as lost+found, is none."""
    found = []
    for entry in folder.iterdir():
        with contextlib.suppress(RepositoryError):
            if entry.is_dir():
                found.append(check_name(entry.name))
    return sorted(found)


def _local_versions(folder: Path) -> set[int]:
    return {int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal()}


def _keep_like(path: Path, text: str | None) -> None:
    """Makes a small file say this, in one step; None removes it."""
    if text is None:
        path.unlink(missing_ok=True)
        return
    with contextlib.suppress(OSError):
        if path.read_text(encoding="ascii") == text:
            return
    temporary = path.with_name(f"{_COMING}{path.name}")
    temporary.write_text(text, encoding="ascii", errors="replace")
    temporary.replace(path)
