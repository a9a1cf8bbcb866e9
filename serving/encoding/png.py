"""A fast PNG writer: one filter for all lines, compressed by ISA-L.

Generated images are small, many and 8-bit. Of the PNG specification (ISO/IEC 15948) this uses
colour types 0 (grey), 2 (RGB) and 6 (RGB and alpha), and the Up filter: each line less the line
above.

It stays because it pays: Pillow's fastest setting takes 6.9 times as long for 28x28 grey, 4.7 times
for 64x64 RGB and 5.4 times for 512x512 RGB, with files that are 6 to 18 % smaller (`python
benchmarks/serving/png.py`).
"""

import struct
import zlib

import numpy as np
from isal import isal_zlib

from models.bundle.generator import Images

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_UP = 2
_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}


def encode_png(image: Images) -> bytes:
    """Encodes one image [H, W, C] uint8, C of 1, 3 or 4, as a PNG file."""
    return encode_pngs(image[None])[0]


def encode_pngs(images: Images) -> list[bytes]:
    """Encodes images [N, H, W, C] uint8, C of 1, 3 or 4, as a PNG file each.

    The bytes are those of `encode_png`; filtering all lines at once saves time for small images.
    """
    num, height, width, channels = images.shape
    pixels = images.reshape(num, height, width * channels)
    lines = np.empty((num, height, 1 + width * channels), np.uint8)
    lines[:, :, 0] = _UP
    lines[:, 0, 1:] = pixels[:, 0]
    np.subtract(pixels[:, 1:], pixels[:, :-1], out=lines[:, 1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    start = _SIGNATURE + _chunk(b"IHDR", header)
    return [
        b"".join((start, _chunk(b"IDAT", isal_zlib.compress(image.data, 1)), _END))
        for image in lines
    ]


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(data, zlib.crc32(kind))
    return b"".join((struct.pack(">I", len(data)), kind, data, struct.pack(">I", checksum)))
