"""PNG, written for speed: one filter for all lines, a fast deflate.

Generated images are small, many and 8-bit. Of the PNG specification (ISO/IEC 15948) this uses
colour types 0 (grey) and 2 (RGB) and the Up filter (each line less the one above); ISA-L
compresses. `benchmarks/serving/png.py` compares time and size with Pillow's encoder.
"""

import struct
import zlib

import numpy as np
from isal import isal_zlib

from models.generator import Images

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_UP = 2


def encode_png(image: Images) -> bytes:
    """One image [H, W, C] uint8, C in 1, 3, as a PNG file."""
    height, width, channels = image.shape
    pixels = image.reshape(height, width * channels)
    lines = np.empty((height, 1 + width * channels), np.uint8)
    lines[:, 0] = _UP
    lines[0, 1:] = pixels[0]
    np.subtract(pixels[1:], pixels[:-1], out=lines[1:, 1:])
    data = isal_zlib.compress(lines.data, 1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    return b"".join((_SIGNATURE, _chunk(b"IHDR", header), _chunk(b"IDAT", data), _END))


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(data, zlib.crc32(kind))
    return b"".join((struct.pack(">I", len(data)), kind, data, struct.pack(">I", checksum)))
