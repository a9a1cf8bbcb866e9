"""Pictures of any shape become images of the training's shape."""

import numpy as np
import pytest
from PIL import Image

from models.decoding.fitting import fitted
from training.data import DataConfig, load
from training.data.decoding import Form
from training.errors import ConfigError

GREY, RED, LIME, BLUE = (128, 128, 128), (255, 0, 0), (0, 255, 0), (0, 0, 255)


def stripes(width, height):
    """A third of the longer side red, lime and blue."""
    pixels = np.zeros((height, width, 3), np.uint8)
    along = pixels if height > width else pixels.swapaxes(0, 1)
    for i, colour in enumerate((RED, LIME, BLUE)):
        along[i * len(along) // 3 : (i + 1) * len(along) // 3] = colour
    return Image.fromarray(pixels)


def made(picture, fit, width, height):
    pixels = fitted(picture, Form(height=height, width=width, channels=3, fit=fit))
    assert pixels.shape == (3, height, width)
    return pixels.transpose(1, 2, 0)


def test_crop_keeps_the_centre_of_the_longer_side():
    assert (made(stripes(60, 20), "crop", 10, 10)[2:-2, 2:-2] == LIME).all()
    assert (made(stripes(20, 60), "crop", 10, 10)[2:-2, 2:-2] == LIME).all()
    wide = made(stripes(60, 20), "crop", 48, 16)
    assert (wide[:, [2, 24, 45]] == [RED, LIME, BLUE]).all()


def test_pad_keeps_everything_and_fills_with_the_background():
    pixels = made(stripes(60, 20), "pad", 30, 30)
    assert (pixels[[0, 9, 20, 29]] == GREY).all()
    assert (pixels[12:18, [2, 15, 27]] == [RED, LIME, BLUE]).all()
    tall = made(stripes(20, 60), "pad", 30, 30)
    assert np.array_equal(tall, pixels.swapaxes(0, 1))


def test_a_pixel_of_a_very_long_picture_stays():
    assert (made(Image.new("RGB", (4000, 2), "red"), "pad", 8, 8)[3] == RED).all()


def test_stretch_fills_everything():
    pixels = made(stripes(60, 20), "stretch", 30, 30)
    assert (pixels[:, [2, 15, 27]] == [RED, LIME, BLUE]).all()


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_width_comes_first(tmp_path, fit):
    stripes(60, 20).save(tmp_path / "a.jpg")
    config = DataConfig(
        dataset="folder", path=tmp_path, resolution="24x8", channels=3, conditional=False, fit=fit
    )
    image_set = load(config)
    assert image_set.images.shape == (1, 3, 8, 24)
    assert (image_set.shape.height, image_set.shape.width) == (8, 24)
    assert image_set.shape == config.shape


def test_a_square_is_one_number():
    assert DataConfig(resolution="32x32") == DataConfig(resolution="32") == DataConfig()
    assert (DataConfig(resolution="24x8").width, DataConfig(resolution="24x8").height) == (24, 8)


@pytest.mark.parametrize("wrong", ["64x", "x64", "64x96x3", "0x8", "8x2000", "-8", "64 x 96"])
def test_what_is_no_size(wrong):
    with pytest.raises(ConfigError, match=rf"resolution is {wrong}; .*1024.*WIDTHxHEIGHT"):
        DataConfig(resolution=wrong)


def test_a_fit_is_one_of_three():
    with pytest.raises(ConfigError, match=r"data\.fit is 'zoom'; allowed are crop, pad, stretch"):
        DataConfig(fit="zoom")
