"""Our PNG writer, read back by Pillow."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from serving.encoding.formats import FORMATS, as_grid
from serving.encoding.png import encode_png, encode_pngs

shapes = st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3, 4]))


@given(shapes.flatmap(lambda shape: arrays(np.uint8, shape)))
def test_pillow_reads_back_every_pixel(image: np.ndarray) -> None:
    opened = Image.open(io.BytesIO(encode_png(image)))
    opened.verify()  # checksums
    read = np.asarray(Image.open(io.BytesIO(encode_png(image))))
    assert (read.reshape(image.shape) == image).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_view_encodes_like_its_copy(channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 255, (4, 9, 7, channels), dtype=np.uint8)
    assert encode_png(images[::2][1]) == encode_png(images[2].copy())


def test_a_smooth_image_is_compressed() -> None:
    ramp = np.tile(np.arange(64, dtype=np.uint8)[:, None, None], (1, 64, 3))
    assert len(encode_png(ramp)) < ramp.nbytes / 20


def test_a_grid_of_one_channel_keeps_it() -> None:
    images = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    assert as_grid(images).shape == (4, 4, 1)


@pytest.mark.parametrize("name", FORMATS)
def test_many_at_once_are_the_same_files(name: str) -> None:
    images = np.random.default_rng(0).integers(0, 255, (5, 9, 7, 3), dtype=np.uint8)
    assert FORMATS[name].encode_all(images[::2]) == [FORMATS[name].encode(i) for i in images[::2]]
    assert encode_pngs(images) == [encode_png(image) for image in images]
