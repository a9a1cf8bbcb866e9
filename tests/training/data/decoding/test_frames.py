"""Animations and files of several pages."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.training.data.decoding.pictures import read, saved
from training.data.decoding import Encoded, Form, decode


def flat(colour, size=8):
    return Image.new("RGB", (size, size), colour)


COLOURS = ["white", "red", "lime", "blue", "black"]
ANIMATED = {"GIF": {}, "WEBP": {"lossless": True}, "PNG": {}, "AVIF": {"quality": 100}}


def animation(kind, colours=COLOURS):
    first, *rest = map(flat, colours)
    return saved(first, kind, save_all=True, append_images=rest, duration=50, **ANIMATED[kind])


@pytest.mark.parametrize("kind", ANIMATED)
def test_the_middle_frame_of_an_animation(kind):
    [(found, origin)] = read(animation(kind))
    assert np.abs(found.astype(int) - [0, 255, 0]).max() < 6
    assert origin.frame == "frame 3 of 5, the middle one"


@pytest.mark.parametrize("kind", ANIMATED)
def test_the_first_frame(kind):
    [(found, origin)] = read(animation(kind), frames="first")
    assert np.abs(found.astype(int) - 255).max() < 6
    assert origin.frame == "the first of 5, as asked for"


@pytest.mark.parametrize("kind", ANIMATED)
def test_all_frames(kind):
    found = read(animation(kind), frames="all")
    means = [pixels.mean((0, 1)) for pixels, _ in found]
    expected = [[255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 0, 0]]
    assert np.abs(np.array(means) - expected).max() < 6
    assert [origin.name for _, origin in found] == [f"x#{i}" for i in range(5)]


def test_the_largest_page():
    pages = [flat("white", 4), flat("red", 32), flat("blue", 16)]
    data = saved(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    [(found, origin)] = read(data)
    assert found.mean((0, 1)).tolist() == [255, 0, 0]
    assert (origin.width, origin.frame) == (32, "page 2 of 3, the largest")
    assert len(read(data, frames="all")) == 3


def test_thumbnails_and_masks_are_no_pages():
    second = _with_tags(flat("blue", 64), {254: 1})
    data = saved(flat("red", 16), "TIFF", save_all=True, append_images=[second])
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 2
    for which in ("one", "all"):
        [(found, _)] = read(data, frames=which)
        assert found.mean((0, 1)).tolist() == [255, 0, 0]


def _with_tags(image, tags):
    image.encoderinfo = {"tiffinfo": tags}
    return image


def test_a_photograph_with_a_gain_map():
    data = saved(flat("red", 32), "MPO", save_all=True, append_images=[flat("blue", 8)])
    for which in ("one", "all"):
        [(found, origin)] = read(data, frames=which)
        assert np.abs(found.mean((0, 1)) - [254, 0, 0]).max() < 3
    assert origin.width == 32


def test_all_frames_of_many_files_need_no_number_beforehand():
    files = [Encoded(f"{i}.gif", animation("GIF"), label=i) for i in range(9)]
    files.insert(4, Encoded("bad.gif", b"GIF89a"))
    decoded = decode(files, Form(height=4, width=4, channels=3, frames="all"), num=len(files))
    assert decoded.images.shape == (45, 3, 4, 4)
    assert decoded.labels.tolist() == [i for i in range(9) for _ in range(5)]
    assert [skipped.name for skipped in decoded.skipped] == ["bad.gif"]
    assert (decoded.images[1::5].mean((2, 3)) == [255, 0, 0]).all()
