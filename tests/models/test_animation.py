"""Animations hold the frames that were given, all of them, for as long as was asked."""

import io

import numpy as np
import pytest
from PIL import Image, ImageSequence

from models.animation import KINDS, encode_animation

MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def frames_of(data: bytes, channels: int) -> tuple[np.ndarray, list[int]]:
    opened = Image.open(io.BytesIO(data))
    frames, durations = [], []
    for frame in ImageSequence.Iterator(opened):
        pixels = np.asarray(frame.convert(MODES[channels]))
        frames.append(pixels.reshape(*pixels.shape[:2], channels))
        durations.append(frame.info["duration"])
    assert opened.info["loop"] == 0
    return np.stack(frames), durations


def pictures(num: int, channels: int, size: tuple[int, int] = (5, 9)) -> np.ndarray:
    """Of few colours, so that a palette holds them."""
    rng = np.random.default_rng(channels)
    images = rng.integers(0, 2, (num, *size, channels), dtype=np.uint8) * 255
    return images


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("order", [[0], [0, 1, 2], [0, 0, 0], [0, 1, 1, 0, 0, 2]])
def test_frames_are_those_that_were_given(kind: str, channels: int, order: list[int]) -> None:
    images = pictures(3, channels)
    if channels == 4 and kind == "gif":
        images[..., :3][images[..., 3] == 0] = 0  # what can't be seen has no colour there
    images = images[order]
    durations = [20 * (1 + index) for index in range(len(order))]
    found, shown = frames_of(encode_animation(kind, images, durations), channels)
    assert shown == durations
    if channels == 4:
        assert (found[..., 3] == images[..., 3]).all()
        found, images = found * (found[..., 3:] > 0), images * (images[..., 3:] > 0)
    assert (found == images).all()


@pytest.mark.parametrize("kind", KINDS)
def test_an_equal_frame_costs_some_bytes(kind: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    one = len(encode_animation(kind, image, [20]))
    many = len(encode_animation(kind, np.repeat(image, 101, 0), [20] * 101))
    assert one > 4000
    assert (many - one) / 100 < 150


def test_durations_are_one_for_each_frame() -> None:
    with pytest.raises(ValueError, match="zip"):
        encode_animation("webp", pictures(2, 3), [20])
