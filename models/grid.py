"""Lays many images out as one picture: in reading order and without gaps.

The export's samples.png, the training's sample grids and the server's grid layout share it.
"""

import io
import math

import numpy as np
import numpy.typing as npt
from PIL import Image

_SHEET_SIDE = 4096  # pixels


def grid(images: npt.NDArray[np.uint8], columns: int | None = None) -> Image.Image:
    """Lays images out row by row without gaps; tiles that are left over stay black, or transparent.

    Args:
        images: [N, H, W, C] uint8, C in 1 (grey), 3 (RGB), 4 (RGBA); N at least 1.
        columns: tiles a row; by default the smallest square that holds all of them.

    Returns:
        An image of mode L, RGB or RGBA; tile i has its upper left corner at
        (i % columns * W, i // columns * H).

    Raises:
        ValueError: the array has another shape or type, or columns < 1.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3, 4):
        raise ValueError(
            f"images are {images.dtype} {list(images.shape)}; a grid takes uint8 "
            "[N, H, W, 1, 3 or 4]"
        )
    num, height, width, channels = images.shape
    if num == 0:
        raise ValueError("images holds none; a grid takes at least one")
    if columns is None:
        columns = square_columns(num)
    if columns < 1:
        raise ValueError(f"columns is {columns}, must be at least 1")
    rows = -(-num // columns)
    tiles = np.zeros((rows * columns, height, width, channels), dtype=np.uint8)
    tiles[:num] = images
    canvas = tiles.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    canvas = canvas.reshape(rows * height, columns * width, channels)
    return Image.fromarray(canvas[:, :, 0] if channels == 1 else canvas)


def sample_layout(height: int, width: int) -> tuple[int, int]:
    """Columns and rows of a sheet of samples: 10 x 10, or fewer where images are large.

    height, width: of an image, in pixels. A hundred images of 1,024 pixels would be 300 MB.
    """
    columns, rows = (max(1, min(10, _SHEET_SIDE // side)) for side in (width, height))
    return columns, rows


def square_columns(num: int) -> int:
    """Tiles a row of the smallest square that holds num tiles; num is at least 1."""
    return math.isqrt(num - 1) + 1


def png(image: Image.Image) -> bytes:
    """Encodes an image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
