"""Pixels to files: the formats that a client can ask for, a registry of plain functions.

Everything takes uint8 images [H, W, C], C in 1, 3, and gives bytes. Adding a format is one entry.
"""

import functools
import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from models.generator import Images
from models.grid import grid
from serving.png import encode_png


@dataclass(frozen=True)
class Format:
    """How one image becomes a file."""

    name: str
    media_type: str
    encode: Callable[[Images], bytes]
    max_side: int
    """Most pixels of a side that the format has room for."""


def _pillow(kind: str, **options: int | bool) -> Callable[[Images], bytes]:
    def encode(image: Images) -> bytes:
        buffer = io.BytesIO()
        pixels = image[:, :, 0] if image.shape[2] == 1 else image
        Image.fromarray(pixels).save(buffer, kind, **options)
        return buffer.getvalue()

    return encode


FORMATS = {
    entry.name: entry
    for entry in (
        Format("png", "image/png", encode_png, 2**31 - 1),
        Format("jpeg", "image/jpeg", _pillow("JPEG", quality=90), 65500),
        Format("webp", "image/webp", _pillow("WEBP", lossless=True, method=0), 16383),
    )
}
SUFFIXES = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp"}
NPY_MEDIA_TYPE = "application/x-npy"
ENCODERS = 1
"""Raised whenever the bytes of an image can change with its pixels the same: part of the ETags."""


def as_grid(images: Images) -> Images:
    """Images [N, H, W, C] as tiles of one image, row by row, near a square."""
    tiles = np.asarray(grid(images))
    return tiles[:, :, None] if tiles.ndim == 2 else tiles


def as_strip(images: Images) -> Images:
    """Images [N, H, W, C] side by side."""
    tiles = np.asarray(grid(images, columns=len(images)))
    return tiles[:, :, None] if tiles.ndim == 2 else tiles


def encode_animation(kind: str, images: Images, frame_ms: int, **options: int | bool) -> bytes:
    """Frames [N, H, W, C] as one file that Pillow calls `kind`, repeated for ever."""
    frames = [Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image) for image in images]
    buffer = io.BytesIO()
    frames[0].save(
        buffer,
        kind,
        save_all=True,
        append_images=frames[1:],
        duration=frame_ms,
        loop=0,
        **options,
    )
    return buffer.getvalue()


ANIMATIONS: dict[str, tuple[str, Callable[[Images, int], bytes]]] = {
    "webp": (
        "image/webp",
        functools.partial(encode_animation, "WEBP", lossless=True, method=0),
    ),
    "gif": ("image/gif", functools.partial(encode_animation, "GIF")),
}
"""Media type and encoder of each kind of animation."""


def encode_npy(images: Images) -> bytes:
    """Images [N, H, W, C] as one .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, images, allow_pickle=False)
    return buffer.getvalue()
