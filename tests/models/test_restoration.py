"""Filled, edited, enlarged: what must stay stays, byte for byte."""

import numpy as np
import pytest

from models.restoration import edited, filled, repeated, shrunk, spread

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, 12, 10, 3), dtype=np.uint8)


def test_what_is_known_stays_and_the_rest_is_made():
    made = RNG.integers(0, 256, IMAGES.shape, dtype=np.uint8)
    mask = np.ones((3, 12, 10), np.uint8)
    mask[0, 3:9, 2:8] = 0
    mask[1] = 0  # nothing is known: all of it is made
    found = filled(IMAGES, made, mask)
    assert (found[mask == 1] == IMAGES[mask == 1]).all()
    assert (found[1] == made[1]).all()
    assert (found[0, 5:7, 4:6] == made[0, 5:7, 4:6]).all()  # deeper inside than the feather
    assert (filled(IMAGES, made, mask, feather=0)[mask == 0] == made[mask == 0]).all()


def test_no_seam_where_made_pixels_are_off_by_a_constant():
    original = np.full((1, 9, 9, 1), 100, np.uint8)
    mask = np.ones((1, 9, 9), np.uint8)
    mask[0, 2:7, 2:7] = 0
    found = filled(original, original + 30, mask)[0, 4, :, 0]
    assert found.tolist() == [100, 100, 110, 120, 130, 120, 110, 100, 100]


def test_an_edit_adds_the_change_alone():
    before = np.full_like(IMAGES, 100)
    after = before.copy()
    after[:, 4:6] = 140
    found = edited(IMAGES, before, after).astype(int)
    assert (found[:, :4] == IMAGES[:, :4]).all()
    assert (found[:, 4:6] == np.minimum(IMAGES[:, 4:6].astype(int) + 40, 255)).all()


def test_enlarging_and_shrinking_undo_each_other():
    assert repeated(IMAGES, 3).shape == (3, 36, 30, 3)
    assert (shrunk(repeated(IMAGES, 3), 3) == IMAGES).all()
    with pytest.raises(ValueError, match="factor is 4, which must divide 12 and 10"):
        shrunk(IMAGES, 4)


def test_answers_that_agree_have_no_spread():
    assert (spread(np.repeat(IMAGES[:1], 4, 0)) == 0).all()
    two = np.stack([np.zeros((2, 2, 1), np.uint8), np.full((2, 2, 1), 10, np.uint8)])
    assert (spread(two) == 5).all()
