"""Images that commands read and write: exact pixels, masks by alpha or as a file, words in PNGs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.bundle.generator import Images
from models.decoding.colour import UNUSABLE
from models.decoding.road import KNOWN_ALPHA, colours_and_known
from models.grid import grid, png
from models.image_metadata import with_metadata
from training.data.decoding import Encoded, Form, Origin, decode
from training.errors import ConfigError, DataError, require

Mask = npt.NDArray[np.uint8]
SHEET = "sheet.png"
"""The file in which all are seen beside each other."""
NOT_TRUE = "plausible, not true: one of many images that agree with what was given"


class Size(NamedTuple):
    """Of images."""

    height: int
    width: int
    channels: int


def read_images(
    files: Sequence[Path], size: Size, *, exact: bool, whose: str = "the model's"
) -> Images:
    """Reads files as [N, H, W, C].

    Args:
        files: at least one.
        size: of the result.
        exact: they must have this size; otherwise they are fitted as training images are (crop).
        whose: size it is, in words.

    Raises:
        ConfigError: no file is given, or one has another size.
        DataError: a file can't be read.
    """
    return _read(files, size, exact, whose)[0]


def read_for_filling(files: Sequence[Path], mask: Path | None, size: Size) -> tuple[Images, Mask]:
    """Images [N, H, W, C] of this size, and masks [N, H, W]: 1 where a pixel is known, else 0.

    Known pixels are the file's own, also where alpha is below 255: the server's are the same.

    Args:
        files: at least one.
        mask: one for all, white where pixels are known, black where they are to be filled; None:
            each image's alpha.
        size: of the model's images.

    Raises:
        ConfigError: nothing says what to fill, or two things do; nothing is to be filled, or
            nothing is known.
        DataError: a file can't be read.
    """
    if mask is not None:
        images, origins = _read(files, size, True)
        for origin in origins:
            if origin.transparent and size.channels != 4:
                raise ConfigError(
                    f"{origin.name} is transparent in places, and --mask says what to fill: give "
                    "one of them"
                )
        grey = read_images([mask], Size(size.height, size.width, 1), exact=True)
        known = (grey[..., 0] >= KNOWN_ALPHA).astype(np.uint8).repeat(len(files), 0)
    else:
        require(
            size.channels != 4,
            "mask",
            None,
            "a file, as alpha is a part of this model's images",
            "set --mask",
        )
        whole = read_images(files, Size(size.height, size.width, 4), exact=True)
        images, known = colours_and_known(whole, size.channels)
    _check_masks(known, [str(mask or path) for path in files])
    return images, known


def _read(
    files: Sequence[Path], size: Size, exact: bool, whose: str = "the model's"
) -> tuple[Images, tuple[Origin, ...]]:
    require(bool(files), "FILES", "none", "one file or more", "put them behind MODEL")
    form = Form(height=size.height, width=size.width, channels=size.channels)
    found = decode([Encoded(str(path), path) for path in files], form, num=len(files))
    if found.skipped:
        raise DataError(str(found.skipped[0]))
    if len(found.images) != len(files):
        raise DataError(f"FILES has {len(files)} files with {len(found.images)} images; one each")
    for origin in found.origins:
        if UNUSABLE in origin.lost:
            raise DataError(f"{origin.name}: {origin.lost}; save it as sRGB, or without a profile")
        if exact and (origin.height, origin.width) != (size.height, size.width):
            raise ConfigError(
                f"{origin.name} is {origin.width}x{origin.height}, allowed: "
                f"{size.width}x{size.height}, {whose}; cut it out or resize it first"
            )
    return np.ascontiguousarray(found.images.transpose(0, 2, 3, 1)), found.origins


def _check_masks(known: Mask, names: Sequence[str]) -> None:
    """Raises ConfigError for a mask that hides nothing, or everything."""
    for where, one in zip(names, known, strict=True):
        if one.all():
            raise ConfigError(
                f"mask of {where} hides nothing: make pixels transparent, or give --mask FILE, "
                "black where to fill"
            )
        if not one.any():
            raise ConfigError(
                f"mask of {where} hides the whole image: nothing is known of it; leave some white, "
                "or generate images without one"
            )


def tagged(image: Images, fields: Mapping[str, str]) -> bytes:
    """A PNG of one image [H, W, C] that carries some words."""
    return with_metadata(png(grid(image[None])), "png", fields)


def sheet(rows: Sequence[Images], side: int = 64) -> bytes:
    """A PNG of rows of equally many images each, enlarged by whole factors to about `side`."""
    columns = len(rows[0])
    picture = grid(np.concatenate(list(rows)), columns)
    factor = max(1, side // rows[0].shape[2])
    size = (picture.width * factor, picture.height * factor)
    return png(picture.resize(size, Image.Resampling.NEAREST))


def names_of(files: Sequence[Path], answers: int) -> list[list[str]]:
    """A file name for each answer of each image: NAME.png, or NAME-K.png of several.

    Raises:
        ConfigError: two files would give the same, or one that of the sheet of them all.
    """
    stems = [path.stem for path in files]
    is_free = answers > 1 or Path(SHEET).stem not in stems
    require(is_free, "FILES", SHEET, "other names, as all answers are shown in it", "rename it")
    for stem in stems:
        require(
            stems.count(stem) == 1, "FILES", f"{stem} twice", "other names", "run twice, or rename"
        )
    if answers == 1:
        return [[f"{stem}.png"] for stem in stems]
    return [[f"{stem}-{number}.png" for number in range(answers)] for stem in stems]


def table(names: Sequence[str], columns: Mapping[str, np.ndarray]) -> str:
    """A table in Markdown: a line for each image, its figures [N] in columns."""
    lines = [f"| image | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for row, name in enumerate(names):
        values = " | ".join(f"{float(column[row]):.4g}" for column in columns.values())
        lines.append(f"| {name} | {values} |")
    return "\n".join(lines)
