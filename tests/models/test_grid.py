import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from models.grid import grid, png


def _images(num: int, height: int, width: int, channels: int) -> np.ndarray:
    rng = np.random.default_rng(num * 1000 + height)
    return rng.integers(1, 256, (num, height, width, channels), dtype=np.uint8)


@given(
    num=st.integers(1, 30),
    columns=st.none() | st.integers(1, 40),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    channels=st.sampled_from([1, 3]),
)
def test_every_tile_lies_where_documented(num, columns, height, width, channels):
    images = _images(num, height, width, channels)
    canvas = grid(images, columns)
    pixels = np.asarray(canvas).reshape(canvas.height, canvas.width, channels)
    columns = columns or canvas.width // width
    assert pixels.shape == (-(-num // columns) * height, columns * width, channels)
    for i in range(num):
        y, x = i // columns * height, i % columns * width
        assert np.array_equal(pixels[y : y + height, x : x + width], images[i])
    assert np.count_nonzero(pixels) == images.size  # what is left over is black


@pytest.mark.parametrize(
    ("num", "size"), [(1, (2, 3)), (2, (4, 3)), (4, (4, 6)), (5, (6, 6)), (100, (20, 30))]
)
def test_by_default_nearly_square(num, size):
    assert grid(_images(num, 3, 2, 1)).size == size


def test_mode_follows_the_channels():
    assert grid(_images(2, 3, 3, 1)).mode == "L"
    assert grid(_images(2, 3, 3, 3)).mode == "RGB"


def test_png_holds_the_same_pixels():
    canvas = grid(_images(7, 4, 5, 3))
    read = Image.open(io.BytesIO(png(canvas)))
    assert read.format == "PNG"
    assert np.array_equal(np.asarray(read), np.asarray(canvas))


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((0, 2, 2, 1), np.uint8),
        np.zeros((1, 2, 2, 2), np.uint8),
        np.zeros((2, 2, 1), np.uint8),
        np.zeros((1, 2, 2, 1), np.float32),
    ],
)
def test_other_arrays_are_refused(images):
    with pytest.raises(ValueError, match="a grid takes"):
        grid(images)


def test_columns_must_be_positive():
    with pytest.raises(ValueError, match="columns is 0"):
        grid(_images(1, 2, 2, 1), 0)
