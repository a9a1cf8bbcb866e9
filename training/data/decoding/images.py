"""Images before and after they are decoded, and those that could not be."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.data.file_names import printable

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Encoded:
    """An encoded image: a file, or its bytes."""

    name: str
    """The name in reports."""
    source: Path | bytes
    label: int = 0

    def read(self) -> "Encoded":
        """Returns itself."""
        return self


@dataclass(frozen=True)
class Packed:
    """An encoded image within an archive, which is read when its turn comes."""

    name: str
    """The name in reports."""
    source: Callable[[], bytes]
    """Raises ValueError with the reason where it can't be read."""
    label: int = 0

    def read(self) -> Encoded:
        """Reads it.

        Raises:
            ValueError: it can't be read; the text is the reason.
        """
        return Encoded(self.name, self.source(), self.label)


@dataclass(frozen=True, slots=True)
class Origin:
    """An image's properties before it was decoded to the training's size."""

    name: str
    width: int
    height: int
    mode: str
    """Pillow's: L, RGB, CMYK and so on."""
    lost: str = ""
    """What the conversion to 8-bit sRGB lost, in words; empty for nothing."""
    transparent: bool = False
    """True where not all of it is opaque."""
    frame: str = ""
    """Which of the file's several frames or pages it is, in words; empty for the only one."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """An image that could not be used."""

    name: str
    reason: str

    @classmethod
    def of(cls, name: str, reason: str) -> "Skipped":
        """Makes both texts printable: a file's name may hold any bytes, and reasons quote it."""
        return cls(printable(name), printable(reason))

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True)
class Decoded:
    """Decoded images, and the files that could not be decoded."""

    images: Pixels
    """[N, C, R, R] uint8."""
    labels: npt.NDArray[np.int64]
    """[N]."""
    origins: tuple[Origin, ...]
    """N of them, in the order of the images."""
    skipped: tuple[Skipped, ...]
