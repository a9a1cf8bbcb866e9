"""Orientation in every container, and EXIF data that are malformed."""

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from tests.training.data.decoding.pictures import picture, pixels, quarters, read, saved

COLOURS = [[200, 60, 30], [40, 150, 90], [60, 70, 220], [250, 250, 250]]
TURNS = {  # where the upper left, upper right, lower left and lower right quarters are from
    1: (0, 1, 2, 3),
    2: (1, 0, 3, 2),
    3: (3, 2, 1, 0),
    4: (2, 3, 0, 1),
    5: (0, 2, 1, 3),
    6: (2, 0, 3, 1),
    7: (3, 1, 2, 0),
    8: (1, 3, 0, 2),
}
KINDS = {
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "JPEG": {"quality": 100, "subsampling": 0},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_orientation(kind):
    for orientation, order in TURNS.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = saved(picture(COLOURS), kind, exif=exif, **KINDS[kind])
        expected = quarters([COLOURS[i] for i in order])[1::2, 1::2]
        assert np.abs(pixels(data)[1::2, 1::2] - expected).max() < 40, (kind, orientation)


def _exif(orientation=6):
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "maker"
    exif[0x8769] = {0x9003: "2024:01:01 00:00:00"}
    return exif.tobytes()


def test_malformed_exif_never_loses_a_photograph():
    whole = _exif()
    rng = np.random.default_rng(0)
    bad = [b"", b"Exif\0\0", b"Exif\0\0nonsense", whole[:12], whole[:20], whole[:-9]]
    for _ in range(60):
        damaged = bytearray(whole)
        for place in rng.integers(6, len(whole), 4):
            damaged[place] = rng.integers(256)
        bad.append(bytes(damaged))
    for exif in bad:
        for kind in ("PNG", "WEBP", "JPEG"):
            data = saved(picture(COLOURS), kind, exif=exif, **KINDS[kind])
            found = read(data)
            assert not isinstance(found, str), (kind, exif, found)
            turned = [quarters([COLOURS[i] for i in order])[1, 1] for order in TURNS.values()]
            assert min(np.abs(found[0][0][1, 1] - colour).max() for colour in turned) < 40


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_malformed_exif_of_tiff(compression):
    for tag, value in ((0x8769, 2**31), (0x8825, 3), (0x0112, 8), (0x8769, 8)):
        info = TiffImagePlugin.ImageFileDirectory_v2()
        info[tag] = value
        data = saved(picture(COLOURS), "TIFF", tiffinfo=info, compression=compression)
        order = TURNS[8 if tag == 0x0112 else 1]
        assert (pixels(data) == quarters([COLOURS[i] for i in order])).all()


def test_a_malformed_list_of_pictures():
    plain = saved(picture(COLOURS), "JPEG", **KINDS["JPEG"])
    for content in (b"MPF\0", b"MPF\0II*\0\x08\0\0\0\x01", b"MPF\0MM\0*" + b"\xff" * 30):
        segment = b"\xff\xe2" + (len(content) + 2).to_bytes(2, "big") + content
        found = read(plain[:2] + segment + plain[2:])
        assert not isinstance(found, str), (content, found)
