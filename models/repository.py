"""Named models in numbered versions: publish atomically, list, pin, roll back, verify.

    REPOSITORY/NAME/VERSION/    a bundle; VERSION = 1, 2, 3 ...
    REPOSITORY/NAME/CURRENT     the version served when none is asked for: "3", or "3 pinned"
    REPOSITORY/NAME/CANDIDATE   one on trial, and its share of the seeds: "4 10%"; often absent

A version appears by one rename and CURRENT changes by another, so a reader (or a kill -9) sees the
old state or the new, never a part. Writers take turns through a lock file; readers take no lock.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import msgspec

from models.bundle import MANIFEST, Bundle, sync_folder, write_synced
from models.candidate import Candidate
from models.errors import BundleError, NotInRepositoryError, RepositoryError
from models.files import open_regular
from models.locks import STAGING, writing
from models.manifest import encode

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


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
        """Models with at least one version, sorted; none where the folder can't be read."""
        try:
            folders = [entry.name for entry in self.root.iterdir() if entry.is_dir()]
        except OSError:  # `fault` says which
            return []
        return sorted(name for name in folders if _NAME.fullmatch(name) and self._list(name))

    def fault(self) -> str | None:
        """Why there is no model here, as far as the folder tells; None where there is one."""
        try:
            next(self.root.iterdir(), None)
        except OSError as error:
            return (
                f"{self.root}: {error.strerror}; mount or make it, name another folder with "
                "--repository DIR, or publish one with `python -m training.run`"
            )
        if self.names():
            return None
        return (
            f"{self.root}: holds no models; name another folder with --repository DIR, or "
            "publish one with `python -m training.run`"
        )

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
            absent = self._no_version(name, current.version, versions)
            raise NotInRepositoryError(f"{file}: {absent}; set it with `promote`")
        return current

    def bundle(self, name: str, version: int | None = None) -> Bundle:
        """Opens a version, CURRENT's where none is given.

        Raises:
            NotInRepositoryError: there is no such model or version.
            BundleError: its manifest can't be used, or is another version's.
        """
        if version is None:
            version = self.current(name).version
        bundle = Bundle.open(self.bundle_path(name, version))
        manifest = bundle.manifest
        if (manifest.name, manifest.version) != (name, version):
            raise BundleError(
                f"{bundle.path / MANIFEST}: is version {manifest.version} of {manifest.name!r}, in "
                f"the folder of version {version} of {name!r}; a version gets its number by being "
                "published, not by a copied or renamed folder: remove this one, or rename it back"
            )
        return bundle

    def bundle_path(self, name: str, version: int) -> Path:
        """The folder of a version.

        Raises:
            NotInRepositoryError: there is no such model or version.
        """
        versions = self.versions(name)
        if version not in versions:
            raise NotInRepositoryError(self._no_version(name, version, versions))
        return self.root / name / str(version)

    def check_there(self, name: str, version: int) -> None:
        """Raises NotInRepositoryError where there is no such version; cheaper than `versions`."""
        if not self.root.joinpath(check_name(name), str(version)).is_dir():
            raise NotInRepositoryError(self._no_version(name, version, self.versions(name)))

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
        with writing(self.root / name) as folder:
            earlier = self._list(name)
            version = max(self._numbers(name), default=0) + 1
            has_current = (folder / "CURRENT").exists()
            pinned = has_current and self.current(name).pinned
            staging = folder / f"{STAGING}{version}"
            staging.mkdir()
            for file in source.manifest.files:
                with open_regular(source.path / file) as content:
                    write_synced(staging / file, content.read())
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

        Where that is a change, a trial ends: the candidate has won, or has nothing to be compared
        with any more.

        Raises:
            NotInRepositoryError: there is no such model or version.
            BundleError: its files don't match its manifest.
        """
        self.bundle(name, version).verify_files()
        with writing(self.root / name) as folder:
            current = Current(version, pin)
            before = _text_of(folder / "CURRENT").split()[:1]
            self._set_current(folder, current)
            if before != [str(version)]:
                self._set_candidate(folder, None)
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

    def candidate(self, name: str) -> Candidate | None:
        """The version on trial, if there is one; it need not exist.

        Raises:
            RepositoryError: CANDIDATE can't be read.
        """
        file = self.root / check_name(name) / "CANDIDATE"
        try:
            return Candidate.parse(file.read_text(encoding="ascii"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, UnicodeDecodeError, RepositoryError) as error:
            raise RepositoryError(f"{file}: {error}; set it with `canary`") from error

    def set_candidate(self, name: str, candidate: Candidate) -> None:
        """Puts a version on trial, or changes its share.

        Raises:
            NotInRepositoryError: there is no such model or version.
            BundleError: its files don't match its manifest.
            RepositoryError: it is CURRENT, or takes other labels.
        """
        trial = self.bundle(name, candidate.version)
        trial.verify_files()
        with writing(self.root / name) as folder:
            current = self.bundle(name).manifest
            if current.version == candidate.version:
                raise RepositoryError(f"version {candidate.version} of {name!r} is CURRENT already")
            if current.labels != trial.manifest.labels:
                raise RepositoryError(
                    f"version {candidate.version} of {name!r} has other labels than CURRENT, "
                    f"{current.version}: a request that suits one would be refused by the other"
                )
            self._set_candidate(folder, candidate)

    def end_candidate(self, name: str) -> None:
        """Ends a trial: CURRENT makes every seed again. Nothing happens where there is none.

        Raises:
            NotInRepositoryError: there is no such model.
        """
        self.versions(name)
        with writing(self.root / name) as folder:
            self._set_candidate(folder, None)

    def _list(self, name: str) -> list[int]:
        return sorted(version for version, is_folder in self._numbers(name).items() if is_folder)

    def _numbers(self, name: str) -> dict[int, bool]:
        """Numbers that are taken, and whether by a folder: a file of that name is no version."""
        try:
            with os.scandir(self.root / name) as entries:
                return {
                    int(entry.name): entry.is_dir()
                    for entry in entries
                    if _VERSION.fullmatch(entry.name)
                }
        except OSError:
            return {}

    def _no_version(self, name: str, version: int, versions: list[int]) -> str:
        held = ", ".join(map(str, versions))
        return f"model {name!r} has no version {version} in {self.root}; it holds: {held}"

    def _set_current(self, folder: Path, current: Current) -> None:
        self._replace(folder / "CURRENT", str(current))

    def _set_candidate(self, folder: Path, candidate: Candidate | None) -> None:
        if candidate is None:
            (folder / "CANDIDATE").unlink(missing_ok=True)
            sync_folder(folder)
        else:
            self._replace(folder / "CANDIDATE", str(candidate))

    def _replace(self, file: Path, text: str) -> None:
        temporary = file.with_name(f"{STAGING}{file.name}")
        write_synced(temporary, f"{text}\n".encode("ascii"))
        temporary.replace(file)
        sync_folder(file.parent)


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


def _text_of(file: Path) -> str:
    """What a file holds; nothing where it can't be read."""
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


if __name__ == "__main__":
    import sys

    from models.cli import main

    sys.exit(main(sys.argv[1:]))
