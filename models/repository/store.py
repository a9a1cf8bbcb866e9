"""Named models in numbered versions: publish atomically, list, pin, roll back, verify.

    REPOSITORY/NAME/VERSION/    a bundle; VERSION = 1, 2, 3 ...
    REPOSITORY/NAME/CURRENT     the version served when none is asked for: "3", or "3 pinned"
    REPOSITORY/NAME/CANDIDATE   one on trial, and its share of the seeds: "4 10%"; often absent

A version appears by one rename and CURRENT changes by another. So a reader sees the old state or
the new one and never a part, even after a kill -9. Writers lock the folder; readers do not.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import msgspec

from models.bundle.bundle import MANIFEST, Bundle, sync_folder, write_synced
from models.bundle.files import open_regular
from models.bundle.manifest import encode
from models.errors import BundleError, NotInRepositoryError, RepositoryError
from models.repository.candidate import Candidate
from models.repository.locks import STAGING, write_lock

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class Current:
    """The content of the file CURRENT. A pinned version stays when a newer one is published."""

    version: int
    pinned: bool = False

    def __str__(self) -> str:
        return f"{self.version} pinned" if self.pinned else str(self.version)


class Repository:
    """A folder of named models in numbered versions."""

    def __init__(self, root: Path) -> None:
        """Names the folder, which need not exist before the first publish."""
        self.root = root

    def names(self) -> list[str]:
        """Names of the models with at least one version, sorted; empty where it can't be read."""
        try:
            folders = [entry.name for entry in self.root.iterdir() if entry.is_dir()]
        except OSError:  # `fault` says which
            return []
        return sorted(name for name in folders if _NAME.fullmatch(name) and self._list(name))

    def fault(self) -> str | None:
        """Explains why the repository has no model; None where it has one."""
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
        """The version that is served when none is asked for.

        Raises:
            NotInRepositoryError: there is no such model, or not the version that CURRENT names.
            RepositoryError: CURRENT can't be read.
        """
        file = self.root / check_name(name) / "CURRENT"
        try:  # read before the versions are listed: the one that it names then exists already
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
        """Opens a version; CURRENT where none is given.

        Raises:
            NotInRepositoryError: there is no such model or version.
            BundleError: its manifest can't be used, or belongs to another version.
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

    def publish(self, name: str, source: Bundle, *, make_current: bool = True) -> Bundle:
        """Copies a bundle into the repository as the next version.

        Args:
            name: the model's name.
            source: a bundle anywhere on disk; its files are verified first.
            make_current: makes it CURRENT, unless CURRENT is pinned.

        Raises:
            BundleError: the source's files don't match its manifest.
            RepositoryError: the name is not allowed, or the repository can't be written.
        """
        check_name(name)
        source.verify_files()
        with write_lock(self.root / name) as folder:
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
            Bundle.open(staging).verify_files()  # the source may have changed while it was copied
            sync_folder(staging)
            staging.rename(folder / str(version))
            sync_folder(folder)
            if make_current and not pinned:
                self.set_current_file(folder, Current(version))
            elif not has_current:
                self.set_current_file(folder, Current(earlier[-1] if earlier else version))
            sync_folder(self.root)
        return Bundle.open(folder / str(version))

    def promote(self, name: str, version: int, *, pin: bool = False) -> Current:
        """Makes a version CURRENT. With pin it stays CURRENT when newer ones are published.

        If CURRENT changes, a trial ends: the candidate has become CURRENT, or what it was compared
        with is no longer served.

        Raises:
            NotInRepositoryError: there is no such model or version.
            BundleError: its files don't match its manifest.
        """
        self.bundle(name, version).verify_files()
        with write_lock(self.root / name) as folder:
            current = Current(version, pin)
            before = _text_of(folder / "CURRENT").split()[:1]
            self.set_current_file(folder, current)
            if before != [str(version)]:
                self.set_candidate_file(folder, None)
        return current

    def pin(self, name: str, version: int | None = None) -> Current:
        """Keeps a version CURRENT until another is promoted; CURRENT itself where none is given."""
        if version is None:
            version = self.current(name).version
        return self.promote(name, version, pin=True)

    def rollback(self, name: str) -> Current:
        """Makes the version before CURRENT the current one.

        Raises:
            NotInRepositoryError: there is no earlier version.
        """
        current = self.current(name).version
        earlier = [version for version in self.versions(name) if version < current]
        if not earlier:
            raise NotInRepositoryError(f"model {name!r} has no version before {current}")
        return self.promote(name, earlier[-1])

    def candidate(self, name: str) -> Candidate | None:
        """The version on trial, or None; the version itself may be missing.

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
        """Starts a trial of a version, or changes its share.

        Raises:
            NotInRepositoryError: there is no such model or version.
            BundleError: its files don't match its manifest.
            RepositoryError: it is CURRENT, or has other labels.
        """
        trial = self.bundle(name, candidate.version)
        trial.verify_files()
        with write_lock(self.root / name) as folder:
            current = self.bundle(name).manifest
            if current.version == candidate.version:
                raise RepositoryError(f"version {candidate.version} of {name!r} is CURRENT already")
            if current.labels != trial.manifest.labels:
                raise RepositoryError(
                    f"version {candidate.version} of {name!r} has other labels than CURRENT, "
                    f"{current.version}: a request that suits one would be refused by the other"
                )
            self.set_candidate_file(folder, candidate)

    def end_candidate(self, name: str) -> None:
        """Ends a trial, so that CURRENT serves every seed. Does nothing where there is none.

        Raises:
            NotInRepositoryError: there is no such model.
        """
        self.versions(name)
        with write_lock(self.root / name) as folder:
            self.set_candidate_file(folder, None)

    def _list(self, name: str) -> list[int]:
        return sorted(version for version, is_folder in self._numbers(name).items() if is_folder)

    def _numbers(self, name: str) -> dict[int, bool]:
        """Numbers in use, and whether a folder has them: a file of such a name is not a version."""
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

    def set_current_file(self, folder: Path, current: Current) -> None:
        """Replaces CURRENT in a model's folder, whose write lock the caller holds."""
        self._replace(folder / "CURRENT", str(current))

    def set_candidate_file(self, folder: Path, candidate: Candidate | None) -> None:
        """Replaces or removes CANDIDATE in a model's folder, under the caller's write lock."""
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
    """Returns a model's name if it is allowed.

    Raises:
        RepositoryError: it could not be the name of a folder in the repository.
    """
    if not _NAME.fullmatch(name):
        raise RepositoryError(
            f"model name {name!r} is not allowed: letters, digits, '.', '_' and '-', "
            "a letter or digit first, 63 at most"
        )
    return name


def _text_of(file: Path) -> str:
    """Reads a file; empty where it can't be read."""
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
