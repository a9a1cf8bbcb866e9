"""Figures of planted scores, whose AUROC and alarms are known."""

import numpy as np
import pytest
import torch

from models.networks import ImageShape
from training.anomaly.autoencoder import TOLERANCE, errors, fitted, of_size, size_of
from training.anomaly.figures import Scores, best_of, expected_false_alarms, judge
from training.anomaly.methods import METHODS, Given


def test_planted_scores() -> None:
    rng = np.random.default_rng(0)
    usual, calibration = rng.random(400), rng.random(199)
    far = Scores(usual=usual, unusual=2 + rng.random(100), calibration=calibration)
    blind = Scores(usual=usual, unusual=rng.random(100), calibration=None)
    found = judge({"blind": blind, "far": far}, alpha=0.05)
    assert best_of(found) == "far"
    assert found["far"].auroc.value == found["far"].average_precision.value == 1
    assert found["far"].found is not None
    assert found["far"].found.value == 1
    alarms = found["far"].false_alarms
    assert alarms is not None
    counted = [(1 + (calibration >= a).sum()) / 200 <= 0.05 for a in usual]
    assert alarms.value == pytest.approx(np.mean(counted))
    assert alarms.interval[0] <= alarms.value <= alarms.interval[1]
    low, high = found["blind"].auroc.interval
    assert low < 0.5 < high
    behind = found["blind"].behind
    assert behind is not None
    assert behind.value == pytest.approx(1 - found["blind"].auroc.value)
    assert behind.interval[0] > 0.3
    assert found["blind"].false_alarms is None


def test_a_rate_of_none_or_all_is_not_certain() -> None:
    """Of 60 usual images none alarms, of 20 others all: the rates may well be .05 and .85."""
    calibration = np.linspace(0, 1, 199)
    scores = Scores(usual=np.zeros(60), unusual=np.full(20, 2.0), calibration=calibration)
    found = judge({"it": scores}, alpha=0.05)["it"]
    assert found.false_alarms is not None
    assert found.found is not None
    assert (found.false_alarms.value, found.found.value) == (0, 1)
    z = 1.959964  # Wilson 1927: p is within z standard deviations
    assert found.false_alarms.interval == pytest.approx((0, z**2 / (60 + z**2)), abs=1e-6)
    assert found.found.interval == pytest.approx((20 / (20 + z**2), 1), abs=1e-6)


@pytest.mark.parametrize(("num", "rate"), [(39, 0.05), (36, 1 / 37), (999, 0.05), (10, 0)])
def test_false_alarms_that_are_expected(num: int, rate: float) -> None:
    assert expected_false_alarms(num, 0.05) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("size", "channels", "z_dim", "num"),
    [((8, 8), 1, 32, 570_000), ((16, 16), 1, 4, 20_000), ((32, 24), 3, 64, 3_000_000)],
)
def test_an_autoencoders_size(size: tuple[int, int], channels: int, z_dim: int, num: int) -> None:
    network = of_size(ImageShape(resolution=size, channels=channels), z_dim, num)
    assert abs(size_of(network) - num) <= TOLERANCE * num
    x = torch.rand(2, channels, *size)
    assert network(x).shape == x.shape


def test_an_autoencoder_learns_what_it_is_shown() -> None:
    torch.manual_seed(0)
    x = torch.rand(16, 1, 8, 8) * 2 - 1
    before = of_size(ImageShape(resolution=8, channels=1), 16, 30_000)
    error = errors(before, x).mean()
    after = errors(fitted(before, x, kimg=6, seed=0), x)
    assert after.shape == (16,)
    assert after.mean() < 0.5 * error


@pytest.mark.parametrize("name", METHODS)
def test_each_method_scores_what_it_learned_lowest(name: str) -> None:
    rng = torch.Generator().manual_seed(0)
    base = torch.rand(1, 1, 8, 8, generator=rng)
    x = (base + 0.1 * torch.randn(40, 1, 8, 8, generator=rng)).clamp(-1, 1)
    given = Given(x=x, z_dim=4, num_parameters=20_000, autoencoder_kimg=3, seed=0)
    score = METHODS[name](given)
    other = -x[:10]
    assert score(other).shape == (10,)
    assert score(other).min() > score(x).max()
