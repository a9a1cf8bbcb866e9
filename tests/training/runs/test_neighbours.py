"""The real images beside a generated one are those nearest to it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from training.data import DataConfig, load
from training.runs.neighbours import NUM_NEAREST, NUM_ROWS, neighbours

DIGITS = load(DataConfig(resolution=16, conditional=False))


def repeated(seeds: np.ndarray) -> np.ndarray:
    """A generator that knows eight training images by heart."""
    return DIGITS.images[seeds.astype(np.int64) * 100].permute(0, 2, 3, 1).numpy()


def test_copies_stand_beside_what_they_copy() -> None:
    picture = neighbours(repeated, DIGITS)  # type: ignore[arg-type]
    assert picture is not None
    pixels = np.asarray(picture)
    height, width = pixels.shape[0] // NUM_ROWS, pixels.shape[1] // (NUM_NEAREST + 1)
    tiles = [
        [pixels[r * height : (r + 1) * height, c * width : (c + 1) * width] for c in range(3)]
        for r in range(NUM_ROWS)
    ]
    for made, nearest, second in tiles:
        assert (made == nearest).all()
        assert (made != second).any()


def test_points_and_few_images_have_no_picture() -> None:
    few = replace(DIGITS, images=DIGITS.images[:NUM_NEAREST])
    assert neighbours(repeated, few) is None  # type: ignore[arg-type]
    points = replace(DIGITS, images=torch.zeros(100, 1, 1, 2, dtype=torch.uint8))
    assert neighbours(repeated, points) is None  # type: ignore[arg-type]


def test_large_images_are_read_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = neighbours(repeated, DIGITS)  # type: ignore[arg-type]
    monkeypatch.setattr("training.runs.neighbours._CHUNK_VALUES", 16 * 16 * 100)
    parts = neighbours(repeated, DIGITS)  # type: ignore[arg-type]
    assert whole is not None
    assert parts is not None
    # The nearest one; those behind it may be as far as others, but for how sums are rounded.
    assert (np.asarray(whole)[:, :32] == np.asarray(parts)[:, :32]).all()
