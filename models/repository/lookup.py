"""Opens the bundle that a word on a command line names: a folder, or a published model."""

from pathlib import Path

from models.bundle.bundle import MANIFEST, Bundle
from models.errors import RepositoryError
from models.repository.store import Repository


def open_named(word: str, repository: Path) -> Bundle:
    """Opens a bundle and verifies its files.

    Args:
        word: a bundle's folder, or NAME[@VERSION] of a published model (CURRENT without a version).
        repository: where names are looked up.

    Raises:
        ModelError: it names no bundle, or one that must not be used.
    """
    if (Path(word) / MANIFEST).is_file():
        bundle = Bundle.open(Path(word))
    else:
        model, _, version = word.partition("@")
        if "/" in word or (version and not version.isdecimal()):
            raise RepositoryError(
                f"allowed: a folder that holds a {MANIFEST}, or NAME[@VERSION] with a whole "
                f"number; names are looked up in {repository}, set --repository"
            )
        bundle = Repository(repository).bundle(model, int(version) if version else None)
    bundle.verify_files()
    return bundle
