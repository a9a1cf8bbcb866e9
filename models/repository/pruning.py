"""Removes old versions of a model.

How a version disappears is in `models.repository.removal`. One that a server runs stays; so do
CURRENT, the candidate and the newest.
"""

from dataclasses import dataclass

from models.errors import RepositoryError
from models.repository.locks import without_lock, write_lock
from models.repository.removal import remove_folder, reserved
from models.repository.store import Repository


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """The versions of a model by what happened to them, each ascending."""

    removed: list[int]
    in_use: list[int]
    """Stay only because a process is using them."""
    kept: list[int]


def prune(repository: Repository, name: str, *, keep: int, dry_run: bool = False) -> Pruned:
    """Removes all versions but CURRENT, the candidate, the newest `keep` and those in use.

    dry_run: removes nothing and writes nothing, not even a lock file.

    Raises:
        NotInRepositoryError: there is no such model.
        RepositoryError: keep is below 1, CURRENT or CANDIDATE can't be read, or a write failed.
    """
    if keep < 1:
        raise RepositoryError(
            f"keep is {keep}, must be at least 1: the newest version stays; `remove` takes a whole "
            "model"
        )
    repository.versions(name)
    removed: list[int] = []
    in_use: list[int] = []
    with (without_lock if dry_run else write_lock)(repository.root / name) as folder:
        versions = repository.versions(name)
        spared = {*reserved(repository, name), *versions[-keep:]}
        for version in [version for version in versions if version not in spared]:
            gone = remove_folder(folder, version, dry_run=dry_run)
            (removed if gone else in_use).append(version)
    return Pruned(removed=removed, in_use=in_use, kept=sorted(spared & {*versions}))
