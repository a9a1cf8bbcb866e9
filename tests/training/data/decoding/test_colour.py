"""Colours as a viewer shows them: profiles, and what else files say about their colours."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from models.decoding import icc
from tests.training.data.decoding import pictures
from tests.training.data.decoding.pictures import picture, pixels, quarters, read, saved

COLOURS = [[200, 60, 30], [40, 150, 90], [60, 70, 220], [250, 250, 250]]
PROFILES = {
    "adobe": icc.profile(icc.ADOBE_RGB, icc.ADOBE_GAMMA),
    "p3": icc.profile(icc.P3, None),
    "srgb": pictures.srgb_profile(),
}
LOSSLESS = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}}


@pytest.mark.parametrize("space", PROFILES)
@pytest.mark.parametrize("kind", LOSSLESS)
def test_profiles_are_converted_as_the_standards_say(kind, space):
    data = saved(picture(COLOURS), kind, icc_profile=PROFILES[space], **LOSSLESS[kind])
    expected = pictures.as_srgb(quarters(COLOURS), space)
    assert np.abs(pixels(data) - expected).max() <= 1.5
    if space != "srgb":
        assert np.abs(quarters(COLOURS) - expected).max() > 20  # it makes a difference
    else:
        assert (pixels(data) == quarters(COLOURS)).all()  # and sRGB none at all


def test_a_profile_of_jpeg_and_of_avif():
    expected = pictures.as_srgb(quarters(COLOURS), "adobe")
    for kind, options in (("JPEG", {"subsampling": 0}), ("AVIF", {"subsampling": "4:4:4"})):
        data = saved(picture(COLOURS), kind, icc_profile=PROFILES["adobe"], quality=100, **options)
        assert np.abs(pixels(data)[1:3, 1:3] - expected[1:3, 1:3]).max() < 6


def test_alpha_and_palettes_keep_their_profile():
    with_alpha = picture([[*colour, 255] for colour in COLOURS])
    flat = picture(COLOURS).quantize(4)
    expected = pictures.as_srgb(quarters(COLOURS), "p3")
    for image in (with_alpha, flat):
        data = saved(image, "PNG", icc_profile=PROFILES["p3"])
        assert np.abs(pixels(data) - expected).max() <= 2


def test_grey_pictures():
    greys = [[20], [100], [180], [255]]
    half = ImageCms.ImageCmsProfile(io.BytesIO(icc.profile(icc.SRGB, 1.0)))
    linear = saved(picture(greys), "PNG", icc_profile=half.tobytes())
    brighter = pixels(linear, channels=1)
    expected = 255 * (1.055 * (np.array(100 / 255)) ** (1 / 2.4) - 0.055)
    assert abs(int(brighter[0, -1, 0]) - expected) <= 2
    same = saved(picture(greys), "PNG", icc_profile=PROFILES["srgb"])
    assert (pixels(same, channels=1) == quarters(greys)).all()


def test_inks_with_a_profile():
    inks = [[255, 0, 0, 0], [0, 255, 0, 0], [0, 0, 255, 0], [0, 0, 0, 0]]
    values = quarters(inks).astype(np.uint8)
    image = Image.frombytes("CMYK", (8, 8), values.tobytes())
    data = saved(image, "TIFF", icc_profile=pictures.ink_profile())
    found = pixels(data)
    lightness = (255 - 60) / 255 * 100
    labs = [(lightness, -40, 0), (lightness, 40, -40), (lightness, 0, 40), (100, 0, 0)]
    expected = quarters([pictures.lab_to_srgb(lab) for lab in labs])
    assert np.abs(found - expected).max() <= 4
    assert read(data)[0][1].lost == ""
    bare = read(saved(image, "TIFF"))[0]
    assert "without a colour profile" in bare[1].lost
    assert (bare[0] == quarters([[0, 255, 255], [255, 0, 255], [255, 255, 0], [255] * 3])).all()


def test_lab_files():
    values = quarters([[60, 30, -20], [80, 0, 0], [30, -30, 40], [100, 0, 0]]).astype(float)
    stored = np.stack([values[..., 0] * 2.55, values[..., 1] % 256, values[..., 2] % 256], -1)
    image = Image.frombytes("LAB", (8, 8), stored.round().astype(np.uint8).tobytes())
    expected = np.stack([[pictures.lab_to_srgb(lab) for lab in row] for row in values])
    assert np.abs(pixels(saved(image, "TIFF")) - expected).max() <= 3


@pytest.mark.parametrize("bad", [b"", b"garbage" * 40, PROFILES["p3"][:150], PROFILES["p3"][:60]])
def test_a_damaged_profile_is_said_and_costs_no_picture(bad):
    data = saved(picture(COLOURS), "PNG", icc_profile=bad)
    [(found, origin)] = read(data)
    assert (found == quarters(COLOURS)).all()
    assert ("its colour profile can't be used" in origin.lost) == bool(bad)


def test_a_profile_for_other_values_is_ignored():
    data = saved(picture(COLOURS), "PNG", icc_profile=pictures.ink_profile())
    assert (pixels(data) == quarters(COLOURS)).all()


def _png(*chunks):
    return pictures.png(quarters(COLOURS), colour_type=2, depth=8, chunks=chunks)


def test_chunks_of_png():
    gamma = (b"gAMA", (100_000).to_bytes(4, "big"))  # linear light
    usual = (b"gAMA", (45_455).to_bytes(4, "big"))
    is_srgb = (b"sRGB", b"\0")
    assert (pixels(_png()) == quarters(COLOURS)).all()
    assert (pixels(_png(usual)) == quarters(COLOURS)).all()
    assert (pixels(_png(is_srgb, gamma)) == quarters(COLOURS)).all()
    x = quarters(COLOURS) / 255
    expected = 255 * np.where(x <= 0.0031308, x * 12.92, 1.055 * x ** (1 / 2.4) - 0.055)
    assert np.abs(pixels(_png(gamma)) - expected).max() <= 1.5
    places = [0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06]
    adobe = b"".join(round(place * 100_000).to_bytes(4, "big") for place in places)
    expected = pictures.as_srgb(quarters(COLOURS), "adobe")
    assert np.abs(pixels(_png(usual, (b"cHRM", adobe))) - expected).max() <= 1.5
    line = b"".join((value * 10_000).to_bytes(4, "big") for value in (3, 3, 1, 1, 2, 2, 4, 4))
    assert (pixels(_png(usual, (b"cHRM", line))) == quarters(COLOURS)).all()


def test_adobe_rgb_by_the_mark_of_cameras():
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    data = saved(picture(COLOURS), "WEBP", lossless=True, exif=exif)
    expected = pictures.as_srgb(quarters(COLOURS), "adobe")
    assert np.abs(pixels(data) - expected).max() <= 1.5
