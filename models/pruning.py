"""Which versions of a model may go, and how they go.

A version disappears by one rename, under the writers' lock and only where no process holds a lease
of it: a reader finds the whole of it or nothing, and what a server runs stays. CURRENT, the
candidate and the newest always stay: the newest, since its number would be given again.
"""

from dataclasses import dataclass
from pathlib import Path

from models.bundle import sync_folder
from models.errors import RepositoryError
from models.locks import STAGING, looking, nobody_using, writing
from models.repository import Repository


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What became of each version of a model, ascending."""

    removed: list[int]
    in_use: list[int]
    """Would have gone, but a process is using them."""
    kept: list[int]


def prune(repository: Repository, name: str, *, keep: int, dry_run: bool = False) -> Pruned:
    """Removes all versions but CURRENT, the candidate, the newest `keep` and those in use.

    dry_run: removes nothing, says what would go; writes nothing either, not even a lock file.

    Raises:
        NotInRepositoryError: there is no such model.
        RepositoryError: keep is below 1, CURRENT or CANDIDATE can't be read, or a write failed.
    """
    if keep < 1:
        raise RepositoryError(
            f"keep is {keep}, must be at least 1: the newest version stays, since its number "
            "would be given again"
        )
    repository.versions(name)
    removed: list[int] = []
    in_use: list[int] = []
    with (looking if dry_run else writing)(repository.root / name) as folder:
        versions = repository.versions(name)
        spared = {*reserved(repository, name), *versions[-keep:]}
        for version in [version for version in versions if version not in spared]:
            gone = _remove(folder, version, dry_run=dry_run)
            (removed if gone else in_use).append(version)
    return Pruned(removed=removed, in_use=in_use, kept=sorted(spared & {*versions}))


def remove(repository: Repository, name: str, version: int) -> None:
    """Removes one version.

    Raises:
        NotInRepositoryError: there is no such model or version.
        RepositoryError: it is CURRENT, the candidate, the newest or in use, or a write failed.
    """
    repository.bundle_path(name, version)
    with writing(repository.root / name) as folder:
        why = reserved(repository, name).get(version)
        if version == repository.versions(name)[-1]:
            why = why or "the newest: its number would be given again"
        if why is not None:
            raise RepositoryError(f"version {version} of {name!r} stays: it is {why}")
        if not _remove(folder, version):
            raise RepositoryError(
                f"version {version} of {name!r} stays: a process is using it; "
                "ask again when it serves another one"
            )


def reserved(repository: Repository, name: str) -> dict[int, str]:
    """Versions that a server may be told to serve, and as what."""
    current = repository.current(name)
    candidate = repository.candidate(name)
    words = {} if candidate is None else {candidate.version: "the candidate: end that first"}
    return {**words, current.version: "CURRENT: promote another one first"}


def _remove(folder: Path, version: int, *, dry_run: bool = False) -> bool:
    """False where a process is using it."""
    with nobody_using(folder / str(version), dry_run=dry_run) as free:
        if free and not dry_run:
            (folder / str(version)).rename(folder / f"{STAGING}removed-{version}")
            sync_folder(folder)
        return free
