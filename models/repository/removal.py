"""Removes versions that somebody names, or a whole model.

A version disappears by one rename, under the write lock and under an exclusive lock of its own: a
reader finds the whole version or nothing. What is served stays unless it is forced. A removed
newest version leaves a file of its name, so that its number is never given again.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from models.bundle.bundle import sync_folder, write_synced
from models.errors import ModelError, RepositoryError
from models.repository.locks import STAGING, exclusive_lock, write_lock
from models.repository.store import Current, Repository

_IN_USE = "a process is using it; ask again when it serves another one"


@dataclass(frozen=True, kw_only=True)
class Removed:
    """The versions of a model that were removed, ascending, and what else changed by it."""

    versions: list[int]
    notes: list[str] = field(default_factory=list)


def remove(
    repository: Repository, name: str, version: int | None = None, *, force: bool = False
) -> Removed:
    """Removes one version, or all versions of a model.

    Args:
        repository: the repository.
        name: the model's name.
        version: its number; None for all.
        force: removes what is served, too. In the place of CURRENT comes the newest earlier version
            whose files are whole, or else the oldest later one.

    Raises:
        NotInRepositoryError: there is no such model or version.
        RepositoryError: it is served and not forced, or a write failed.
    """
    versions = repository.versions(name) if version is None else [version]
    repository.bundle_path(name, versions[0])
    with write_lock(repository.root / name) as folder:
        if force:
            notes = _release(repository, folder, versions)
        else:
            _require_free(repository, folder, versions)
            notes = []
        for number in versions:
            if not remove_folder(folder, number, force=force):
                raise RepositoryError(_stays(folder, number, _IN_USE))
        _keep_number(repository, folder, max(versions))
    return Removed(versions=versions, notes=notes)


def reserved(repository: Repository, name: str) -> dict[int, str]:
    """Versions that may be served, each with the reason why it stays."""
    current = repository.current(name)
    candidate = repository.candidate(name)
    words = {} if candidate is None else {candidate.version: "the candidate: end that first"}
    return {**words, current.version: "CURRENT: promote another one first"}


def remove_folder(
    folder: Path, version: int, *, dry_run: bool = False, force: bool = False
) -> bool:
    """Removes a version's folder; returns False where a process is using it. Holds no write lock.

    force: removes it all the same. A process that has loaded it goes on with what it loaded.
    """
    with exclusive_lock(folder / str(version), dry_run=dry_run) as free:
        if (free or force) and not dry_run:
            removed = folder / f"{STAGING}removed-{version}"
            shutil.rmtree(removed, ignore_errors=True)
            (folder / str(version)).rename(removed)
            sync_folder(folder)
        return free or force


def _require_free(repository: Repository, folder: Path, versions: list[int]) -> None:
    """Checks that nobody is served any of the versions.

    Raises:
        RepositoryError: one is CURRENT, the candidate or in use.
    """
    served = reserved(repository, folder.name)
    for number in versions:
        if number in served:
            raise RepositoryError(_stays(folder, number, f"it is {served[number]}"))
        with exclusive_lock(folder / str(number), dry_run=True) as free:
            if not free:
                raise RepositoryError(_stays(folder, number, _IN_USE))


def _stays(folder: Path, version: int, why: str) -> str:
    return f"version {version} of {folder.name!r} stays: {why}, or `remove` it with --force"


def _release(repository: Repository, folder: Path, versions: list[int]) -> list[str]:
    """Takes CURRENT and the trial off versions that go; returns a line for each change."""
    name, notes = folder.name, []
    try:
        current: Current | None = repository.current(name)
    except ModelError:
        current = None  # damaged, or names a version that is gone: it is set anew
    try:
        candidate = repository.candidate(name)
        on_trial = None if candidate is None else candidate.version
    except ModelError:
        on_trial = None
    if on_trial in versions:
        repository.set_candidate_file(folder, None)
        notes.append(f"the trial of version {on_trial} has ended")
    if current is not None and current.version not in versions:
        return notes
    before = versions[0] if current is None else current.version
    new = _successor(repository, name, before, versions)
    if new is None:
        (folder / "CURRENT").unlink(missing_ok=True)
        sync_folder(folder)
        return [*notes, "no version is left, the model is not served any more"]
    pinned = current is not None and current.pinned
    repository.set_current_file(folder, Current(new, pinned))
    if on_trial == new or (on_trial is not None and on_trial not in versions):
        repository.set_candidate_file(folder, None)
        notes.append(f"the trial of version {on_trial} has ended")
    gone = "CURRENT" if current is None else f"version {before}, which was CURRENT"
    return [*notes, f"version {new} is served now, in the place of {gone}"]


def _successor(repository: Repository, name: str, before: int, versions: list[int]) -> int | None:
    """The version to serve instead; None where no whole one is left."""
    left = [number for number in repository.versions(name) if number not in versions]
    earlier = [number for number in reversed(left) if number < before]
    for number in [*earlier, *(number for number in left if number > before)]:
        try:
            repository.bundle(name, number).verify_files()
        except ModelError:
            continue
        return number
    return None


def _keep_number(repository: Repository, folder: Path, version: int) -> None:
    """Leaves a file of the version's name where it was the newest: publishing counts files, too."""
    numbers = [int(path.name) for path in folder.iterdir() if path.name.isdigit()]
    if version > max(numbers, default=0):
        write_synced(folder / str(version), b"removed\n")
        sync_folder(folder)
