"""Modes on samples of which the count is known by construction."""

import math

import numpy as np
import pytest

from training.evaluation.metrics.modes import MIXTURES, NUM_SAMPLES, modes, reverse_kl

RING, GRID = MIXTURES["ring-8"], MIXTURES["grid-25"]


def test_the_mixtures_are_the_published_ones() -> None:
    assert RING.centres.shape == (8, 2)
    assert np.allclose(np.linalg.norm(RING.centres, axis=1), 1)
    assert np.allclose(RING.centres[1], [math.sqrt(0.5), math.sqrt(0.5)])
    assert {tuple(c) for c in GRID.centres} == {
        (x, y) for x in (-4, -2, 0, 2, 4) for y in (-4, -2, 0, 2, 4)
    }
    assert (RING.sigma, GRID.sigma) == (0.01, 0.05)


@pytest.mark.parametrize("mixture", MIXTURES.values(), ids=list(MIXTURES))
def test_exact_draws_catch_every_mode(mixture) -> None:
    found = modes(mixture.sample(20 * NUM_SAMPLES, np.random.default_rng(0)), mixture)
    assert found.caught == len(mixture.centres)
    assert found.good_share == pytest.approx(1 - math.exp(-4.5), abs=2e-3)
    assert found.reverse_kl < 2e-3


def test_one_mode_of_eight() -> None:
    found = modes(np.repeat(RING.centres[:1], 100, axis=0), RING)
    assert (found.caught, found.good_share) == (1, 1.0)
    assert found.reverse_kl == pytest.approx(math.log(8))


def test_three_sigma_is_the_border_and_one_good_sample_catches_a_mode() -> None:
    inside = RING.centres[0] * (1 + 0.0299)
    outside = RING.centres[1] * (1 + 0.0301)
    found = modes(np.array([inside, outside]), RING)
    assert (found.caught, found.good_share) == (1, 0.5)
    # The bad sample still counts for its nearest mode: half and half over two of eight.
    assert found.reverse_kl == pytest.approx(math.log(4))


def test_what_diverged_is_not_good() -> None:
    samples = np.array([RING.centres[0], [np.nan, 0], [np.inf, 1], RING.centres[1]])
    found = modes(samples, RING)
    assert (found.caught, found.good_share) == (2, 0.5)
    none = modes(np.full((3, 2), np.nan), RING)
    assert (none.caught, none.good_share, none.reverse_kl) == (0, 0.0, math.inf)


def test_float32_samples_of_a_network_are_taken() -> None:
    assert modes(GRID.centres.astype(np.float32), GRID).caught == 25


@pytest.mark.parametrize("shape", [(0, 2), (4, 3), (8,)])
def test_other_shapes_are_refused(shape) -> None:
    with pytest.raises(ValueError, match=r"allowed: \[N, 2\]"):
        modes(np.zeros(shape), RING)


def test_reverse_kl_by_hand() -> None:
    # q = (3/4, 1/4), p = (1/2, 1/2)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert reverse_kl(np.array([3, 1]), np.array([10, 10])) == pytest.approx(expected)
    assert reverse_kl(np.array([1, 0]), np.array([1, 1])) == pytest.approx(math.log(2))
    assert reverse_kl(np.array([1, 1]), np.array([1, 0])) == math.inf
    assert reverse_kl(np.array([2, 6]), np.array([1, 3])) == 0
