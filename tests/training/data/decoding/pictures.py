"""Image files of known pixels, and what a viewer shows of them, by formulas of its own."""

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageCms

from training.data.decoding import Encoded, Form
from training.data.decoding.file import Decoder, prepared

SIDE = 8


def read(data, form=None, *, name="x", **options):
    """The pixels [H, W, C] of each picture of a file and their origins, or the reason for none."""
    form = form or Form(**({"height": SIDE, "width": SIDE, "channels": 3} | options))
    with prepared(form):
        found = Decoder(form).read(Encoded(name, data))
    if isinstance(found, str):
        return found
    return [(picture.pixels.transpose(1, 2, 0), picture.origin) for picture in found]


def pixels(data, form=None, **options):
    found = read(data, form, **options)
    assert not isinstance(found, str), found
    assert len(found) == 1
    return found[0][0]


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def quarters(colours, side=SIDE):
    """An array [side, side, C] of four flat quarters: upper left and right, lower left, right."""
    colours = np.array(colours)
    half = side // 2
    return colours.reshape(2, 2, -1).repeat(half, 0).repeat(half, 1)


def png(values, *, colour_type, depth, chunks=()):
    """A PNG file of samples [H, W, samples] as they are; chunks: (name, content)."""
    height, width, _ = values.shape
    bits = "".join  # rows as text: the slow way that leaves no doubt
    rows = b""
    for row in values:
        text = bits(f"{int(value):0{depth}b}" for value in row.flatten())
        text += "0" * (-len(text) % 8)
        rows += b"\0" + int(text, 2).to_bytes(len(text) // 8, "big")
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    body = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    out = b"\x89PNG\r\n\x1a\n"
    for kind, data in body:
        out += struct.pack(">I", len(data)) + kind + data
        out += struct.pack(">I", zlib.crc32(kind + data))
    return out


WHITE = np.array([0.3127 / 0.3290, 1.0, (1 - 0.3127 - 0.3290) / 0.3290])


def to_xyz(primaries):
    """Linear RGB of a space with the white point D65 to XYZ."""
    columns = np.stack([np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in primaries], 1)
    return columns * np.linalg.solve(columns, WHITE)


SRGB = to_xyz([(0.64, 0.33), (0.30, 0.60), (0.15, 0.06)])
SPACES = {
    "adobe": (to_xyz([(0.64, 0.33), (0.21, 0.71), (0.15, 0.06)]), "gamma"),
    "p3": (to_xyz([(0.680, 0.320), (0.265, 0.690), (0.150, 0.060)]), "srgb"),
    "srgb": (SRGB, "srgb"),
}


def as_srgb(colours, space):
    """8-bit colours [..., 3] of a space as 8-bit sRGB, unrounded, by the standards' formulas."""
    matrix, curve = SPACES[space]
    x = np.asarray(colours) / 255
    linear = x ** (563 / 256) if curve == "gamma" else _linear(x)
    linear = (linear @ matrix.T @ np.linalg.inv(SRGB).T).clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def _linear(x):
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def srgb_profile():
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def ink_profile():
    """An ICC profile of four inks as lut8 with a grid of 2: red, green, blue and white are Lab's.

    Each ink takes its share of lightness away: no press, but known to the last bit.
    """
    grid = b""
    for c in (0, 1):
        for m in (0, 1):
            for y in (0, 1):
                for k in (0, 1):
                    lightness = max(0, 255 - 60 * (c + m + y) - 255 * k)
                    grid += bytes([lightness, 128 + 40 * (m - c), 128 + 40 * (y - m)])
    ramp = bytes(range(256))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0])
    lut += struct.pack(">9i", *(65536 * value for value in (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    lut += ramp * 4 + grid + ramp * 3
    white = struct.pack(">4s4x3i", b"XYZ ", 63190, 65536, 54061)
    tags = {b"A2B0": lut, b"wtpt": white}
    start = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = start + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + table + body


def lab_to_srgb(lab):
    """CIE L*a*b* (D50) to 8-bit sRGB, unrounded: Bradford's matrix from D50 to linear sRGB."""
    lightness, a, b = lab
    fy = (lightness + 16) / 116
    f = np.array([fy + a / 500, fy, fy - b / 200])
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * [0.9642, 1, 0.8249]
    matrix = np.array(
        [
            [3.1338561, -1.6168667, -0.4906146],
            [-0.9787684, 1.9161415, 0.0334540],
            [0.0719453, -0.2289914, 1.4052427],
        ]
    )
    linear = (matrix @ xyz).clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def picture(colours):
    values = quarters(colours).astype(np.uint8)
    return Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)
