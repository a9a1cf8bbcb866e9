"""Transparency of every kind, on a background or kept."""

import numpy as np
import pytest
from PIL import Image

from tests.training.data.decoding import pictures
from tests.training.data.decoding.pictures import picture, pixels, quarters, read, saved

BLUE = (10, 20, 240)


def on(colours, alphas, background):
    share = np.array(alphas)[:, None] / 255
    return quarters(np.array(colours) * share + np.array(background) * (1 - share))


def test_transparent_places_lie_on_the_background():
    colours, alphas = [[255, 255, 255]] * 4, [0, 100, 200, 255]
    data = saved(picture([[*c, a] for c, a in zip(colours, alphas, strict=True)]), "PNG")
    [(found, origin)] = read(data)
    assert np.abs(found - on(colours, alphas, (128,) * 3)).max() <= 1
    assert origin.transparent
    assert np.abs(pixels(data, background=BLUE) - on(colours, alphas, BLUE)).max() <= 1
    luma = np.array(BLUE) @ [0.299, 0.587, 0.114]
    grey = pixels(data, background=BLUE, channels=1)
    assert np.abs(grey[..., 0] - on([[255]] * 4, alphas, [luma])[..., 0]).max() <= 2


def test_four_channels_keep_alpha_and_hide_no_colours():
    colours, alphas = [[255, 0, 0], [9, 200, 70], [1, 2, 3], [50, 60, 70]], [0, 100, 200, 255]
    data = saved(picture([[*c, a] for c, a in zip(colours, alphas, strict=True)]), "PNG")
    found = pixels(data, channels=4, background=BLUE)
    assert (found[..., 3] == quarters(alphas)[..., 0]).all()
    assert (found[0, 0] == [*BLUE, 0]).all()
    assert (found[4:, :, :3] == quarters(colours)[4:]).all()
    opaque = pixels(saved(picture(colours), "PNG"), channels=4)
    assert (opaque == quarters([[*colour, 255] for colour in colours])).all()


def test_colours_of_hidden_places_do_not_bleed_when_resized():
    values = np.zeros((32, 32, 4), np.uint8)
    values[..., :3] = (255, 0, 255)  # what editors leave behind
    values[8:24, 8:24] = (0, 200, 0, 255)
    data = saved(Image.fromarray(values), "PNG")
    found = pixels(data, channels=4)
    seen = found[found[..., 3] > 40]
    assert len(seen) > 10
    assert (np.abs(seen[:, :3].astype(int) - [0, 200, 0]) <= 8).all()


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_grey_png_files_of_every_depth_with_a_transparent_value(depth):
    top = 2**depth - 1
    values = quarters([[0], [top], [top // 2], [top]])
    key = (top // 2 if depth > 1 else 0).to_bytes(2, "big")
    plain = pictures.png(values, colour_type=0, depth=depth)
    marked = pictures.png(values, colour_type=0, depth=depth, chunks=[(b"tRNS", key)])
    shown = (values * (255 / top)).astype(int)
    assert np.abs(pixels(plain, channels=1) - shown).max() <= 1
    clear = values == int.from_bytes(key, "big")
    expected = np.where(clear, 128, shown)
    assert np.abs(pixels(marked, channels=1) - expected).max() <= 1
    assert (pixels(marked, channels=4)[..., 3] == np.where(clear, 0, 255)[..., 0]).all()


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("colour_type", [2, 4, 6])
def test_png_files_of_other_types(colour_type, depth):
    scale = (2**depth - 1) // 255
    samples = {2: 3, 4: 2, 6: 4}[colour_type]
    colours = np.array([[200, 60, 30], [40, 150, 90], [60, 70, 220], [250, 250, 250]])
    alphas = [0, 100, 200, 255]
    if colour_type == 2:
        values, alphas = colours, [0, 255, 255, 255]
    elif colour_type == 4:
        colours = colours[:, :1].repeat(3, 1)
        values = np.stack([colours[:, 0], alphas], 1)
    else:
        values = np.column_stack([colours, alphas])
    chunks = []
    if colour_type == 2:
        key = b"".join((int(v) * scale).to_bytes(2, "big") for v in colours[0])
        chunks = [(b"tRNS", key)]
    assert values.shape[1] == samples
    data = pictures.png(
        quarters(values) * scale, colour_type=colour_type, depth=depth, chunks=chunks
    )
    assert np.abs(pixels(data) - on(colours, alphas, (128,) * 3)).max() <= 1
    assert (pixels(data, channels=4)[..., 3] == quarters(alphas)[..., 0]).all()


@pytest.mark.parametrize("depth", [2, 4, 8])
@pytest.mark.parametrize("alphas", [b"", b"\x00", b"\x40\xff\x80", b"\xff\x00\xff\xff"])
def test_palettes_with_alpha(depth, alphas):
    colours = [[200, 60, 30], [40, 150, 90], [60, 70, 220], [250, 250, 250]]
    chunks = [(b"PLTE", np.array(colours, np.uint8).tobytes())] + (
        [(b"tRNS", alphas)] if alphas else []
    )
    data = pictures.png(quarters([[0], [1], [2], [3]]), colour_type=3, depth=depth, chunks=chunks)
    opacity = [*alphas, *[255] * (4 - len(alphas))]
    [(found, origin)] = read(data)
    assert np.abs(found - on(colours, opacity, (128,) * 3)).max() <= 1
    assert origin.transparent == bool(alphas)
    assert "a palette" in origin.lost


def test_other_containers():
    colours = [[200, 60, 30, 0], [40, 150, 90, 255], [60, 70, 220, 255], [250, 250, 250, 255]]
    image = picture(colours)
    expected = on([colour[:3] for colour in colours], [0, 255, 255, 255], (128,) * 3)
    for kind, options in (("WEBP", {"lossless": True}), ("TIFF", {}), ("TGA", {}), ("ICO", {})):
        assert np.abs(pixels(saved(image, kind, **options)) - expected).max() <= 1, kind
    gif = saved(image, "GIF")
    assert np.abs(pixels(gif) - expected).max() <= 1
