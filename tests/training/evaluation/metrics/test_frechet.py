"""The Frechet distance against scipy's matrix root, torch-fidelity, and closed forms."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from training.errors import ConfigError
from training.evaluation.metrics.bootstrap import Resampling
from training.evaluation.metrics.frechet import frechet_distance, of_gaussians


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((24, 24))
    real = rng.standard_normal((400, 24)) @ mix + 3
    fake = np.maximum(rng.standard_normal((300, 24)) @ mix * 1.2, 0)
    return real, fake


def test_it_is_what_scipys_matrix_root_gives(features) -> None:
    real, fake = features
    cov_r, cov_f = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    root = scipy.linalg.sqrtm(cov_r @ cov_f).real
    shift = real.mean(0) - fake.mean(0)
    expected = shift @ shift + np.trace(cov_r + cov_f - 2 * root)
    assert frechet_distance(real, fake).value == pytest.approx(expected, rel=1e-6)


def test_it_is_what_torch_fidelity_gives(features) -> None:
    real, fake = (fid_features_to_statistics(torch.from_numpy(rows)) for rows in features)
    (expected,) = fid_statistics_to_metric(real, fake, False).values()
    assert frechet_distance(*features).value == pytest.approx(expected, rel=1e-6)


def test_by_hand_for_commuting_covariances() -> None:
    mean_a, mean_b = np.array([1.0, 2.0]), np.array([1.0, 5.0])
    found = of_gaussians(mean_a, np.diag([4.0, 9.0]), mean_b, np.diag([1.0, 1.0]))
    assert found == pytest.approx(9 + (2 - 1) ** 2 + (3 - 1) ** 2)


def test_identical_sets_are_at_zero(features) -> None:
    assert frechet_distance(features[0], features[0]).value < 1e-9


def test_a_generator_of_one_image_is_measured() -> None:
    real = np.random.default_rng(0).standard_normal((200, 8))
    fake = np.tile(real.mean(0) + 1, (200, 1))
    expected = 8 + np.trace(np.cov(real, rowvar=False))
    assert frechet_distance(real, fake).value == pytest.approx(expected)


@pytest.mark.parametrize(("num_real", "num_fake"), [(24, 300), (300, 24), (10, 10)])
def test_fewer_samples_than_features_are_refused(num_real, num_fake) -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.standard_normal((num_real, 24)), rng.standard_normal((num_fake, 24))
    says = rf"num_images is {min(num_real, num_fake)}, allowed for frechet_distance: .* 24 features"
    with pytest.raises(ConfigError, match=says):
        frechet_distance(real, fake)


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.0, 1.1), (0.15, 1.0)])
def test_the_interval_is_as_wide_as_draws_differ(shift, scale) -> None:
    """The bootstrap alone is 1.7 times as wide where both are of one distribution."""
    values, widths = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        real, fake = rng.standard_normal((200, 8)), rng.standard_normal((200, 8)) * scale + shift
        found = frechet_distance(real, fake, Resampling(num=60))
        values.append(found.value)
        widths.append((found.interval[1] - found.value) / 1.96)
    assert 0.75 < np.mean(widths) / np.std(values, ddof=1) < 1.4


def test_the_interval_covers_what_such_samples_give_on_average() -> None:
    rng = np.random.default_rng(1)

    def draw():
        return rng.standard_normal((80, 3)), rng.standard_normal((80, 3)) + 0.7

    expected = np.mean([frechet_distance(*draw()).value for _ in range(300)])
    hits = 0
    for _ in range(60):
        found = frechet_distance(*draw(), Resampling(num=100))
        assert found.interval[0] < found.value < found.interval[1]
        hits += found.interval[0] <= expected <= found.interval[1]
    assert hits >= 50
