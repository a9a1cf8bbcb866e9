"""More than 8 bits a value."""

import struct

import numpy as np
import pytest
from PIL import Image

from tests.training.data.decoding import pictures
from tests.training.data.decoding.pictures import pixels, quarters, read, saved


def tiff(values, *, bits, sample_format=1, photometric=1, order="<"):
    """An uncompressed grey TIFF file of one strip; values: bytes of the pixels."""
    tags = [
        *((256, 4, 8), (257, 4, 8), (258, 3, bits), (259, 3, 1), (262, 3, photometric)),
        *((273, 4, 8), (277, 3, 1), (278, 4, 8), (279, 4, len(values)), (339, 3, sample_format)),
    ]
    out = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(values))
    out += values + struct.pack(order + "H", len(tags))
    for tag, kind, value in tags:
        content = struct.pack(order + ("I" if kind == 4 else "H"), value).ljust(4, b"\0")
        out += struct.pack(order + "HHI", tag, kind, 1) + content
    return out + bytes(4)


GREYS = quarters([[0], [60], [130], [255]])


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bits(order):
    wide = (GREYS * 257).astype(order + "u2")
    files = [tiff(wide.tobytes(), bits=16, order=order)]
    if order == "<":
        image = Image.fromarray(wide[..., 0].astype(np.uint16))
        files += [saved(image, "PNG"), saved(image, "TIFF"), saved(image, "JPEG2000")]
        files += [saved(image.convert("I"), "PPM")]
    for data in files:
        [(found, origin)] = read(data, channels=1)
        assert (found == GREYS).all()
        assert "of whose 16 bits the upper 8 are kept" in origin.lost
        assert (pixels(data) == GREYS).all()  # as RGB


def test_white_is_zero():
    wide = (GREYS * 257).astype("<u2")
    assert (pixels(tiff(wide.tobytes(), bits=16, photometric=0), channels=1) == 255 - GREYS).all()
    narrow = GREYS.astype("u1")
    assert (pixels(tiff(narrow.tobytes(), bits=8, photometric=0), channels=1) == 255 - GREYS).all()


def test_twelve_bits():
    values = (GREYS[..., 0] * 16 + 7).reshape(-1, 2)
    packed = b"".join(int((a << 12) | b).to_bytes(3, "big") for a, b in values.tolist())
    [(found, origin)] = read(tiff(packed, bits=12), channels=1)
    assert (found == GREYS).all()
    assert "of 4095, of whose 12 bits the upper 8" in origin.lost


def test_thirty_two_bits():
    wide = (GREYS.astype(np.uint64) * 0x01010101).astype("<u4")
    assert (pixels(tiff(wide.tobytes(), bits=32), channels=1) == GREYS).all()
    middle = (GREYS * 257).astype("<u4")  # 16 bits in a wider file
    assert (pixels(tiff(middle.tobytes(), bits=32), channels=1) == GREYS).all()


@pytest.mark.parametrize("top", [1, 255, 65535])
@pytest.mark.parametrize("overshoot", [0, 0.3])
def test_floating_point(top, overshoot):
    values = (GREYS / 255 * top).astype("<f4")
    values[0, 0] = -overshoot * top / 10
    values[7, 7] = top * (1 + overshoot)
    [(found, origin)] = read(tiff(values.tobytes(), bits=32, sample_format=3), channels=1)
    assert np.abs(found - GREYS).max() <= 1
    assert f"taken as 0 to {top:g}, to 8 bits" in origin.lost


def test_floating_point_of_no_known_range():
    values = (GREYS / 255 * 4000 - 2000).astype("<f4")
    values[1, 1] = np.nan
    [(found, origin)] = read(tiff(values.tobytes(), bits=32, sample_format=3), channels=1)
    assert np.abs(found - GREYS).max() <= 1
    assert "values -2000 to 2000, stretched" in origin.lost


def test_one_bit():
    bits = Image.fromarray(GREYS[..., 0] > 100)
    for kind in ("PNG", "TIFF", "BMP"):
        assert (pixels(saved(bits, kind), channels=1)[..., 0] == 255 * (GREYS[..., 0] > 100)).all()


def test_sixteen_bits_of_three_channels():
    colours = quarters([[200, 60, 30], [40, 150, 90], [60, 70, 220], [250, 250, 250]])
    data = pictures.png(colours * 257, colour_type=2, depth=16)
    assert (pixels(data) == colours).all()
