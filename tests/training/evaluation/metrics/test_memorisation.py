"""A generator that repeats its training images is caught; one that does not, is not."""

import numpy as np
import pytest
import torch

from training.evaluation.features.base import averaged_pixels
from training.evaluation.metrics.bootstrap import Resampling
from training.evaluation.metrics.memorisation import SIDE, memorisation


def measured(fake, train):
    half = len(train) // 2
    found = memorisation(
        train=train,
        held_out=train[half:],
        against=train[:half],
        fake=fake,
        resampling=Resampling(num=20),
    )
    return found.memorised, found.authenticity


def test_copies_are_caught_and_fresh_draws_are_not() -> None:
    rng = np.random.default_rng(0)
    train = rng.random((400, 12))
    memorised, authenticity = measured(train[rng.integers(400, size=300)], train)
    assert (memorised.value, authenticity.value) == (1, 0)
    memorised, authenticity = measured(rng.random((300, 12)), train)
    assert memorised.value < 0.06
    assert 0.3 < authenticity.value < 0.7
    assert authenticity.interval[0] < authenticity.value < authenticity.interval[1]


def test_half_copies_are_half() -> None:
    rng = np.random.default_rng(0)
    train = rng.random((400, 12))
    fake = np.concatenate([train[:150] + 1e-4, rng.random((150, 12))])
    memorised, _ = measured(fake, train)
    assert 0.5 <= memorised.value < 0.56


@pytest.mark.parametrize("share", [0, 0.01, 0.03, 0.3])
def test_redundant_copies_in_the_data_blind_it_to_nothing(share) -> None:
    """The nearest 1% of held-out images are 0 away then; images a grey level off are copies yet."""
    rng = np.random.default_rng(0)
    train = rng.random((1000, 64)).astype(np.float32)
    num = int(share * 1000)
    train[1000 - num :] = train[:num]
    train = train[rng.permutation(1000)]
    near = (train[rng.integers(1000, size=200)] + rng.normal(0, 0.004, (200, 64))).astype(
        np.float32
    )
    memorised, authenticity = measured(near, train)
    assert (memorised.value, authenticity.value) == (1, 0)
    assert memorised.details["duplicates"] == pytest.approx(share)
    assert 10 < memorised.details["near_steps"] < 128
    memorised, authenticity = measured(rng.random((200, 64)).astype(np.float32), train)
    assert memorised.value < 0.06
    assert authenticity.value > 0.3


def test_data_of_nothing_but_copies_has_a_threshold_of_zero() -> None:
    rows = np.repeat(np.random.default_rng(0).random((2, 4)), 10, axis=0)[
        [*range(0, 20, 2), *range(1, 20, 2)]
    ]
    assert measured(rows, rows)[0].details["near_steps"] == 0


def test_pixels_are_means_of_blocks() -> None:
    images = torch.zeros(3, 1, 32, 32, dtype=torch.uint8)
    images[1, 0, :2, :2] = torch.tensor([[0, 255], [255, 255]], dtype=torch.uint8)
    found = averaged_pixels(images, SIDE)
    assert found.shape == (3, 256)
    assert found[1, 0] == 0.75
    assert found.sum() == 0.75
