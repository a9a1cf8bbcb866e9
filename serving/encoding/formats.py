"""Image formats that a client can ask for: a registry of functions from pixels to files.

Encoders take uint8 images [H, W, C] with C of 1, 3 or 4. A new format is one new entry.
"""

import functools
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from models.animation import KINDS, encode_animation
from models.bundle.generator import Images
from models.grid import grid
from serving.encoding.png import encode_png, encode_pngs


@dataclass(frozen=True)
class Format:
    """A file format for one image."""

    name: str
    media_type: str
    encode: Callable[[Images], bytes]
    max_side: int
    """The most pixels of a side that the format allows."""
    has_alpha: bool = True
    """True where it holds transparency."""
    is_lossy: bool = False
    """True where pixels come back as others."""
    encode_many: Callable[[Images], list[bytes]] | None = None
    """Faster for many images [N, H, W, C], with the same bytes; None where nothing is."""

    def encode_all(self, images: Images) -> list[bytes]:
        """Encodes images [N, H, W, C], a file each."""
        if self.encode_many is not None:
            return self.encode_many(images)
        return [self.encode(image) for image in images]


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
        Format("png", "image/png", encode_png, 2**31 - 1, encode_many=encode_pngs),
        Format(
            "jpeg", "image/jpeg", _pillow("JPEG", quality=90), 65500, has_alpha=False, is_lossy=True
        ),
        Format("webp", "image/webp", _pillow("WEBP", lossless=True, method=0, exact=True), 16383),
    )
}
LOSSY = frozenset(entry.media_type for entry in FORMATS.values() if entry.is_lossy)
"""Media types whose pixels come back as others."""
SUFFIXES = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp"}
NPY_MEDIA_TYPE = "application/x-npy"
ENCODERS = 1
"""Version of the encoders, part of ETags: to be raised when they give other bytes than before."""


def as_grid(images: Images) -> Images:
    """Returns images [N, H, W, C] as tiles of one image, row by row, near a square."""
    tiles = np.asarray(grid(images))
    return tiles[:, :, None] if tiles.ndim == 2 else tiles


def as_strip(images: Images) -> Images:
    """Returns images [N, H, W, C] side by side in one image."""
    tiles = np.asarray(grid(images, columns=len(images)))
    return tiles[:, :, None] if tiles.ndim == 2 else tiles


ANIMATIONS: dict[str, tuple[str, Callable[[Images, Sequence[int]], bytes]]] = {
    kind: (f"image/{kind}", functools.partial(encode_animation, kind)) for kind in KINDS
}
"""Media type and encoder of each kind of animation."""


def encode_npy(images: Images) -> bytes:
    """Encodes images [N, H, W, C] as one .npy file."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, np.lib.format.header_data_from_array_1_0(images))
    # One copy of the pixels: `save` would gather them in a buffer that grows.
    return b"".join((buffer.getvalue(), np.ascontiguousarray(images).data))
