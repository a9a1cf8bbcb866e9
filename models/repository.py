"""Named models in numbered versions: publish atomically, list, pin, roll back, verify.

    REPOSITORY/NAME/VERSION/    a bundle; VERSION = 1, 2, 3 ...
    REPOSITORY/NAME/CURRENT     the version served when none is asked for: "3", or "3 pinned"

A version appears by one rename and CURRENT changes by another, so a reader (or a kill -9) sees the
old state or the new, never a part. Writers take turns through a lock file; readers take no lock.
"""

import contextlib
import fcntl
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from models.bundle import MANIFEST, Bundle, sync_folder, write_synced
from models.errors import NotInRepositoryError, RepositoryError
from models.manifest import encode

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
_STAGING = ".staging-"
_LOCK = ".lock"
_LOCK_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Current:
    """What CURRENT says. A pinned version stays when a newer one is published."""

    version: int
    pinned: bool = False

    def __str__(self) -> str:
        return f"{self.version} pinned" if self.pinned else str(self.version)


class Repository:
    """A folder of models."""

    def __init__(self, root: Path) -> None:
        """root: the folder; it need not exist before the first publish."""
        self.root = root

    def names(self) -> list[str]:
        """Models with at least one version, sorted."""
        if not self.root.is_dir():
            return []
        folders = [entry.name for entry in self.root.iterdir() if entry.is_dir()]
        return sorted(name for name in folders if _NAME.fullmatch(name) and self._list(name))

    def versions(self, name: str) -> list[int]:
        """Versions of a model, ascending.

        Raises:
            NotInRepositoryError: there is no such model.
        """
        check_name(name)
        versions = self._list(name)
        if not versions:
            known = ", ".join(self.names()) or "none"
            raise NotInRepositoryError(f"model {name!r} is not in {self.root}; it holds: {known}")
        return versions

    def current(self, name: str) -> Current:
        """The version served when none is asked for.

        Raises:
            NotInRepositoryError: there is no such model, or not the version that CURRENT names.
            RepositoryError: CURRENT can't be read.
        """
        file = self.root / check_name(name) / "CURRENT"
        try:  # before the versions are listed: what it names then, was there already
            words = file.read_text(encoding="ascii").split()
        except (FileNotFoundError, NotADirectoryError):
            # No such model, or killed between the first version's rename and CURRENT's.
            return Current(self.versions(name)[-1])
        except (OSError, UnicodeDecodeError) as error:
            raise RepositoryError(f"{file}: {error}; set it with `promote`") from error
        pinned = words[1:] == ["pinned"]
        if not words or not _VERSION.fullmatch(words[0]) or (words[1:] and not pinned):
            raise RepositoryError(f"{file}: holds {' '.join(words)!r}; set it with `promote`")
        current = Current(int(words[0]), pinned)
        versions = self.versions(name)
        if current.version not in versions:
            raise NotInRepositoryError(self._no_version(name, current.version, versions))
        return current

    def bundle(self, name: str, version: int | None = None) -> Bundle:
        """Opens a version, CURRENT's where none is given.

        Raises:
            NotInRepositoryError: there is no such model or version.
            BundleError: its manifest can't be used.
        """
        if version is None:
            version = self.current(name).version
        versions = self.versions(name)
        if version not in versions:
            raise NotInRepositoryError(self._no_version(name, version, versions))
        return Bundle.open(self.root / name / str(version))

    def publish(self, name: str, source: Bundle, *, make_current: bool = True) -> Bundle:
        """Copies a verified bundle in as the next version.

        Args:
            name: the model's name.
            source: a bundle anywhere on disk; its files are verified first.
            make_current: move CURRENT too, unless it is pinned.

        Raises:
            BundleError: the source's files don't match its manifest.
            RepositoryError: the name is not allowed, or the repository can't be written.
        """
        check_name(name)
        source.verify_files()
        with self._writing(name) as folder:
            earlier = self._list(name)
            version = max(earlier, default=0) + 1
            has_current = (folder / "CURRENT").exists()
            pinned = has_current and self.current(name).pinned
            staging = folder / f"{_STAGING}{version}"
            staging.mkdir()
            for file in source.manifest.files:
                write_synced(staging / file, (source.path / file).read_bytes())
            manifest = msgspec.structs.replace(source.manifest, name=name, version=version)
            write_synced(staging / MANIFEST, encode(manifest))
            Bundle.open(staging).verify_files()
            sync_folder(staging)
            staging.rename(folder / str(version))
            sync_folder(folder)
            if make_current and not pinned:
                self._set_current(folder, Current(version))
            elif not has_current:
                self._set_current(folder, Current(earlier[-1] if earlier else version))
            sync_folder(self.root)
        return Bundle.open(folder / str(version))

    def promote(self, name: str, version: int, *, pin: bool = False) -> Current:
        """Makes a version CURRENT. With pin it stays CURRENT when newer ones are published.

        Raises:
            NotInRepositoryError: there is no such model or version.
            BundleError: its files don't match its manifest.
        """
        self.bundle(name, version).verify_files()
        with self._writing(name) as folder:
            current = Current(version, pin)
            self._set_current(folder, current)
        return current

    def pin(self, name: str, version: int | None = None) -> Current:
        """Keeps a version, CURRENT's where none is given, until another is promoted."""
        if version is None:
            version = self.current(name).version
        return self.promote(name, version, pin=True)

    def rollback(self, name: str) -> Current:
        """Makes the version before CURRENT the current one.

        Raises:
            NotInRepositoryError: there is none before it.
        """
        current = self.current(name).version
        earlier = [version for version in self.versions(name) if version < current]
        if not earlier:
            raise NotInRepositoryError(f"model {name!r} has no version before {current}")
        return self.promote(name, earlier[-1])

    def _list(self, name: str) -> list[int]:
        try:
            entries = [entry.name for entry in (self.root / name).iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(int(entry) for entry in entries if _VERSION.fullmatch(entry))

    def _no_version(self, name: str, version: int, versions: list[int]) -> str:
        held = ", ".join(map(str, versions))
        return f"model {name!r} has no version {version} in {self.root}; it holds: {held}"

    def _set_current(self, folder: Path, current: Current) -> None:
        temporary = folder / f"{_STAGING}CURRENT"
        write_synced(temporary, f"{current}\n".encode("ascii"))
        temporary.replace(folder / "CURRENT")
        sync_folder(folder)

    @contextlib.contextmanager
    def _writing(self, name: str) -> Iterator[Path]:
        """The model's folder, locked, and cleared of what a killed writer left."""
        folder = self.root / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / _LOCK).open("w", encoding="ascii") as lock:
                _take(lock.fileno(), folder)
                _clear(folder)
                try:
                    yield folder
                finally:
                    _clear(folder)
        except OSError as error:
            raise RepositoryError(f"{error.filename or folder}: {error.strerror}") from error


def check_name(name: str) -> str:
    """Returns the name.

    Raises:
        RepositoryError: it could not be a folder's name inside the repository.
    """
    if not _NAME.fullmatch(name):
        raise RepositoryError(
            f"model name {name!r} is not allowed: letters, digits, '.', '_' and '-', "
            "a letter or digit first, 63 at most"
        )
    return name


def _clear(folder: Path) -> None:
    for left in folder.glob(f"{_STAGING}*"):
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


if __name__ == "__main__":
    import sys

    from models.cli import main

    sys.exit(main(sys.argv[1:]))
