"""Many images as one picture: tiles in reading order, edge to edge, tile i at a place to compute.

Shared by the export's samples.png, the training journal and the server's grid layout. Knows arrays
and Pillow only.
"""

import io
import math

import numpy as np
import numpy.typing as npt
from PIL import Image


def grid(images: npt.NDArray[np.uint8], columns: int | None = None) -> Image.Image:
    """Lays images out row by row, without gaps; places that are left over stay black.

    Args:
        images: [N, H, W, C] uint8, C in 1 (grey), 3 (RGB); N at least 1.
        columns: tiles a row; by default the smallest square that holds all of them.

    Returns:
        An image of mode L or RGB; tile i has its upper left corner at
        (i % columns * W, i // columns * H).

    Raises:
        ValueError: the array has another shape or type, or columns < 1.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise ValueError(
            f"images are {images.dtype} {list(images.shape)}; a grid takes uint8 [N, H, W, 1 or 3]"
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


def square_columns(num: int) -> int:
    """Tiles a row of the smallest square that holds num of them, num at least 1."""
    return math.isqrt(num - 1) + 1


def png(image: Image.Image) -> bytes:
    """The image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
