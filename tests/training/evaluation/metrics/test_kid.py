"""The kernel distance against torch-fidelity and plain sums."""

import numpy as np
import pytest
import torch
from torch_fidelity.metric_kid import kid_features_to_metric

from training.evaluation.metrics import neighbours
from training.evaluation.metrics.bootstrap import Resampling
from training.evaluation.metrics.kid import kernel_distance


def draw(rng, num=120, shift=0.0, dim=10):
    return rng.standard_normal((num, dim)), rng.standard_normal((num, dim)) + shift


def test_it_is_what_torch_fidelity_gives_on_a_subset_of_all(monkeypatch) -> None:
    monkeypatch.setattr(neighbours, "_BLOCK_VALUES", 1000)  # several blocks
    real, fake = draw(np.random.default_rng(0), shift=0.4)
    options = {"kid_subsets": 1, "kid_subset_size": len(real), "kid_kernel": "poly"}
    options |= {"kid_kernel_poly_degree": 3, "kid_kernel_poly_coef0": 1, "verbose": False}
    expected = kid_features_to_metric(torch.from_numpy(real), torch.from_numpy(fake), **options)
    found = kernel_distance(real, fake).value
    assert found == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-6)


def test_by_plain_sums_for_sets_of_two_sizes() -> None:
    real, fake = np.array([[1.0], [2.0], [4.0]]), np.array([[0.0], [-1.0]])

    def k(x, y):
        return (x[0] * y[0] + 1) ** 3

    within_real = sum(k(a, b) for a in real for b in real if a is not b)
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    within_real = sum(k(real[i], real[j]) for i, j in pairs) / 6
    within_fake = k(fake[0], fake[1])
    between = sum(k(a, b) for a in real for b in fake) / 6
    expected = within_real + within_fake - 2 * between
    assert kernel_distance(real, fake).value == pytest.approx(expected)


def test_it_is_unbiased() -> None:
    rng = np.random.default_rng(0)
    values = [kernel_distance(*draw(rng, 40)).value for _ in range(400)]
    assert min(values) < 0 < max(values)
    assert abs(np.mean(values)) < 4 * np.std(values) / 20


def test_the_interval_is_as_wide_as_draws_differ() -> None:
    """The bootstrap alone is 1.7 times as wide where both are of one distribution."""
    values, widths = [], []
    for seed in range(60):
        found = kernel_distance(*draw(np.random.default_rng(seed), 80), Resampling(num=100))
        values.append(found.value)
        widths.append((found.interval[1] - found.value) / 1.96)
    assert 0.75 < np.mean(widths) / np.std(values, ddof=1) < 1.45


def test_the_interval_covers_the_true_distance() -> None:
    rng = np.random.default_rng(1)
    truth = np.mean([kernel_distance(*draw(rng, 60, 0.5)).value for _ in range(300)])
    hits = 0
    for _ in range(60):
        low, high = kernel_distance(*draw(rng, 60, 0.5), Resampling(num=100)).interval
        hits += low <= truth <= high
    assert hits >= 50
