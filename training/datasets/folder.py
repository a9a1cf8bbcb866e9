"""Any folder of images: what lies in it is used, what can't be is named."""

import dataclasses
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from training.datasets.registry import Raw, dataset, decoded
from training.decode import Encoded, Skipped
from training.errors import DataError
from training.names import printable

if TYPE_CHECKING:
    from training.data import DataConfig


@dataset("folder", labelled=True, needs_path=True, own=True)
def folder(config: "DataConfig") -> Raw:
    """Any folder of images, searched to every depth; classes are its first level of subfolders."""
    if not config.root.is_dir():
        raise DataError(f"data.path is {config.root}: not a folder; give one that holds images")
    skipped: list[Skipped] = []
    files = sorted(_files(config.root, skipped))
    names: tuple[str, ...] | None = None
    classes: dict[str, int] = {}
    if config.conditional:
        loose = [file for file in files if len(file.parts) == 1]
        skipped += [
            Skipped.of(str(file), "in no class, which are the first level of subfolders")
            for file in loose
        ]
        files = [file for file in files if len(file.parts) > 1]
        folders = sorted({file.parts[0] for file in files})
        names = tuple(map(printable, folders))
        classes = {folder: i for i, folder in enumerate(folders)}
    encoded = [
        Encoded(str(file), config.root / file, classes.get(file.parts[0], 0)) for file in files
    ]
    raw = decoded(config, encoded, len(encoded), names)
    if len(raw.images) == 0:
        seen = "; ".join(map(str, [*skipped, *raw.skipped][:3])) or "it holds no files"
        raise DataError(
            f"data.path is {config.root}: no image could be read in it ({seen}); give a folder "
            "of images" + (", one subfolder a class" if config.conditional else "")
        )
    return _without_empty_classes(raw, tuple(skipped))


def _without_empty_classes(raw: Raw, skipped: tuple[Skipped, ...]) -> Raw:
    """Drops classes none of whose images could be read: there is nothing to learn of them."""
    labels, names = raw.labels, raw.label_names
    if labels is not None and names is not None:
        used, labels = np.unique(labels, return_inverse=True)
        labels = labels.astype(np.int64)
        skipped += tuple(
            Skipped.of(name, "no image of this class")
            for i, name in enumerate(names)
            if i not in used
        )
        names = tuple(names[i] for i in used)
    return dataclasses.replace(
        raw, labels=labels, label_names=names, skipped=(*skipped, *raw.skipped)
    )


def _files(root: Path, skipped: list[Skipped]) -> Iterator[Path]:
    """Every regular file below the root, relative to it; hidden ones are left out.

    Links to folders are followed, each folder entered once. What can't be used is added to skipped.
    """
    seen: set[tuple[int, int]] = set()

    def unreadable(error: OSError) -> None:
        skipped.append(Skipped.of(os.path.relpath(error.filename, root), str(error.strerror)))

    for folder, subfolders, names in os.walk(root, onerror=unreadable, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            path = Path(folder, name)
            try:
                regular = stat.S_ISREG(path.stat().st_mode)
            except OSError as error:
                skipped.append(Skipped.of(str(path.relative_to(root)), str(error.strerror)))
                continue
            if regular:
                yield path.relative_to(root)
            else:
                skipped.append(Skipped.of(str(path.relative_to(root)), "not a regular file"))
