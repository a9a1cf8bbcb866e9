"""Files that the command line writes: their names, and how they come to be."""

import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from serving.client.arguments import UsageError


class FileError(Exception):
    """A file can't be written as asked."""


def write_file(path: Path, data: bytes, *, force: bool) -> None:
    """Writes a file whole or not at all.

    Raises:
        FileError: it is there already, and not to be overwritten.
    """
    if path.exists() and not force:
        raise FileError(f"{path} exists; choose another name, or add --force")
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def image_paths(folder: Path, seeds: Sequence[int], labels: Sequence[int] | None) -> list[Path]:
    """A file for each image: SEED.png, or SEED-labelLABEL.png for all where a seed recurs.

    Args:
        folder: of them all.
        seeds: one an image.
        labels: one an image; None where all have the same, or none.

    Raises:
        UsageError: a seed recurs with the same label.
    """
    names = [str(seed) for seed in seeds]
    if labels is not None and len(set(seeds)) < len(seeds):
        names = [f"{seed}-label{label}" for seed, label in zip(seeds, labels, strict=True)]
    ((name, num),) = Counter(names).most_common(1)
    if num > 1:
        raise UsageError(
            f"--seeds and --labels ask {num} times for {name}.png, the same image each time; "
            "leave out all but one"
        )
    return [folder / f"{name}.png" for name in names]
