"""Precision, recall, density and coverage against the package of their authors."""

import contextlib
import io
import warnings

import numpy as np
import pytest

from training.errors import ConfigError
from training.evaluation.metrics import neighbours
from training.evaluation.metrics.bootstrap import Resampling
from training.evaluation.metrics.manifold import manifold

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from prdc import compute_prdc

NAMES = ("precision", "recall", "density", "coverage")


def sets(seed=0, num_real=300, num_fake=250, dim=16):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((num_real, dim)) + 50, rng.standard_normal((num_fake, dim)) + 50.5


@pytest.mark.parametrize("nearest_k", [1, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_they_are_what_prdc_gives(seed, nearest_k, monkeypatch) -> None:
    monkeypatch.setattr(neighbours, "_BLOCK_VALUES", 5000)  # several blocks
    real, fake = sets(seed)
    with contextlib.redirect_stdout(io.StringIO()):
        expected = compute_prdc(real, fake, nearest_k)
    found = manifold(real, fake, nearest_k=nearest_k)
    for name in NAMES:
        assert getattr(found, name).value == pytest.approx(expected[name], abs=1e-6), name


def test_identical_sets_are_perfect() -> None:
    real, _ = sets()
    found = manifold(real, real.copy())
    assert [getattr(found, name).value for name in ("precision", "recall", "coverage")] == [1, 1, 1]


def test_one_mode_is_precise_and_covers_nothing() -> None:
    real, _ = sets()
    found = manifold(real, np.tile(real[:1], (250, 1)))
    assert found.precision.value == 1
    assert found.coverage.value < 0.1
    assert found.recall.value < 0.1


def test_far_away_is_nothing() -> None:
    real, fake = sets()
    found = manifold(real, fake + 1000)
    assert [getattr(found, name).value for name in NAMES] == [0, 0, 0, 0]


def test_no_more_samples_than_neighbours_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"num_images is 5, allowed .* more than their 5"):
        manifold(np.zeros((5, 2)), np.zeros((9, 2)))


def test_intervals_surround_the_figures() -> None:
    found = manifold(*sets(), resampling=Resampling(num=100))
    for name in NAMES:
        figure = getattr(found, name)
        assert figure.interval[0] <= figure.value <= figure.interval[1], name
        assert figure.interval[1] - figure.interval[0] < 0.3
    assert found == manifold(*sets(), resampling=Resampling(num=100))
