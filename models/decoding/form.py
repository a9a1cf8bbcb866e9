"""The form that all images of a training are given."""

from dataclasses import dataclass
from typing import Literal, get_args

GREY = (128, 128, 128)
MAX_PIXELS = 300_000_000

Which = Literal["one", "first", "all"]
Fit = Literal["crop", "pad", "stretch"]

FITS: tuple[str, ...] = get_args(Fit)


@dataclass(frozen=True, kw_only=True)
class Form:
    """What images are decoded to."""

    height: int
    """In pixels."""
    width: int
    """In pixels."""
    channels: int
    """1 (grey, ITU-R 601 luma), 3 (RGB) or 4 (RGB and alpha, not premultiplied)."""
    background: tuple[int, int, int] = GREY
    """sRGB colour behind transparent places; of 4 channels, the colour where alpha is 0."""
    max_pixels: int = MAX_PIXELS
    """Width times height of a file, at most."""
    frames: Which = "one"
    """Of a file with several frames or pages: the middle frame or the largest page, the first, or
    all."""

    fit: Fit = "crop"
    """How images of another shape come to this one: crop (the longer side, around the centre), pad
    (the shorter side, with the background) or stretch."""

    @property
    def nbytes(self) -> int:
        """Bytes of an image."""
        return self.channels * self.height * self.width

    @property
    def mode(self) -> str:
        """Pillow's mode for this number of channels."""
        return {1: "L", 3: "RGB", 4: "RGBA"}[self.channels]
