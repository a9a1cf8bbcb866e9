"""Files of images: their names, and writing them whole or not at all.

The commands that make images share it: those of `models.offline`, and the server's client.
"""

import contextlib
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO


class RepeatedImageError(Exception):
    """Two images would have the same name: they are the same image."""


def image_paths(folder: Path, seeds: Sequence[int], labels: Sequence[int] | None) -> list[Path]:
    """Names a file for each image: SEED.png, or SEED-labelLABEL.png where a seed recurs.

    Args:
        folder: where all of them lie.
        seeds: one for each image.
        labels: one for each image; None where all have the same, or none.

    Raises:
        RepeatedImageError: a pair of seed and label occurs twice.
    """
    names = [str(seed) for seed in seeds]
    given = "--seeds names"
    if labels is not None and len(set(seeds)) < len(seeds):
        names = [f"{seed}-label{label}" for seed, label in zip(seeds, labels, strict=True)]
        given = "--seeds and --labels name"
    ((name, num),) = Counter(names).most_common(1)
    if num > 1:
        raise RepeatedImageError(
            f"{given} {name}.png {num} times, always the same image; leave out all but one"
        )
    return [folder / f"{name}.png" for name in names]


def require_free(paths: Sequence[Path], *, force: bool) -> None:
    """Raises FileExistsError, with the remedy, where a file is there already, unless forced."""
    for path in paths:
        if path.exists() and not force:
            raise FileExistsError(f"{path} exists; choose another name, or add --force")


def write_file(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all; its folder is made."""
    with whole_file(path) as file:
        file.write(data)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Gives a file to write to, which gets its name when the block ends without an error.

    Its folder is made. Whoever looks meanwhile finds what was there before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
