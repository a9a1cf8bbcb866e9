"""Files in MNIST's format (IDX), wherever they lie below a folder and whichever way they are named.

Names in use: train-images-idx3-ubyte, train-images.idx3-ubyte, emnist-letters-train-images-idx3-
ubyte, each as it is or with .gz.
"""

import gzip
import math
import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.errors import DataError

_IMAGES = r"(.*[-_])?({})[-_.]images?[-_.]idx3[-_.]ubyte(\.gz)?"
TRAIN, TEST = (re.compile(_IMAGES.format(part), re.IGNORECASE) for part in ("train", "t10k|test"))
"""Names of the files of images of each part."""
_UNSIGNED_BYTE = 8
_MAX_DEPTH = 3

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, order=True)
class Pair:
    """The files of one part, train or test."""

    images: Path
    labels: Path

    def read(self) -> tuple[Bytes, Bytes]:
        """Reads images [N, H, W] and labels [N].

        Raises:
            DataError: a file is damaged, or they don't belong together.
        """
        images, labels = read(self.images, 3), read(self.labels, 1)
        if len(images) != len(labels):
            raise DataError(
                f"{self.images}: images of shape {list(images.shape)} with {len(labels)} labels in "
                f"{self.labels.name}; the files don't belong together: fetch them again"
            )
        return images, labels


def find(root: Path, part: re.Pattern[str] = TRAIN) -> Pair | None:
    """The images and labels of a part at most three folders below a folder; None for none.

    Raises:
        DataError: there are several, or the labels are missing.
    """
    found: dict[Path, Pair] = {}
    for folder, subfolders, names in os.walk(root):
        if len(Path(folder).relative_to(root).parts) == _MAX_DEPTH:
            subfolders.clear()
        subfolders.sort()
        for name in sorted(filter(part.fullmatch, names)):
            images = Path(folder, name)
            # Where both are there, the unpacked file is read: it comes first in sorted order.
            found.setdefault(_unpacked(images), Pair(images, _labels_of(images)))
    if len(found) > 1:
        places = ", ".join(str(path.relative_to(root)) for path in found)
        raise DataError(
            f"data.path is {root}: it holds such images of several sets ({places}); give "
            "the folder of one of them"
        )
    return next(iter(found.values()), None)


def read(path: Path, dimensions: int) -> Bytes:
    """Reads an IDX file of unsigned bytes (yann.lecun.com/exdb/mnist), packed by gzip or not.

    Raises:
        DataError: it is no such file, is damaged, or has another number of dimensions.
    """
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: it can't be read ({error}); fetch it again") from error
    start = 4 + 4 * dimensions
    if data[:4] != bytes([0, 0, _UNSIGNED_BYTE, dimensions]) or len(data) < start:
        raise DataError(
            f"{path}: no IDX file of bytes in {dimensions} dimensions; fetch it again, or give "
            "another --data.path"
        )
    shape = tuple(int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4))
    if len(data) - start != math.prod(shape):
        raise DataError(
            f"{path}: it holds {len(data) - start:,} bytes, its header says {list(shape)}: "
            "fetch it again"
        )
    # A copy, since torch wants arrays that can be written.
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape).copy()


def _unpacked(path: Path) -> Path:
    return path.with_suffix("") if path.suffix.lower() == ".gz" else path


def _labels_of(images: Path) -> Path:
    name = _unpacked(images).name
    for words in (("images", "labels"), ("image", "label"), ("IMAGES", "LABELS")):
        name = name.replace(*words, 1) if words[0] in name else name
    name = name.replace("idx3", "idx1")
    for path in (images.with_name(name), images.with_name(name + ".gz")):
        if path.is_file():
            return path
    raise DataError(f"{images}: its labels are missing; put {name} (or {name}.gz) beside it")
