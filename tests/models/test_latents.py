import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from models.latents import MAX_SEED, as_seeds, latents, slerp

SEEDS = st.integers(0, MAX_SEED)

# From architecture.md: never to change, in no release.
GOLDEN = {
    0: [0.1585338, 2.982879, -1.925692, -0.8249255],
    1: [0.8974447, -1.25654, 1.890501, 0.3742715],
    42: [0.2345499, 0.5842987, -0.4201588, 0.3276819],
    2**64 - 1: [-0.3471275, -1.666235, -0.281476, -1.303163],
}


def by_definition(seed: int, z_dim: int) -> np.ndarray:
    """The contract, number by number, as architecture.md writes it."""
    n = z_dim + z_dim % 2
    # As an array: NumPy would take a list with a seed of 2**63 or more for floating point.
    bits = np.random.Philox(key=np.array([seed, 0], dtype=np.uint64)).random_raw(n)
    u = [((int(b) >> 11) + 0.5) * 2.0**-53 for b in bits]
    z = []
    for i in range(0, n, 2):
        radius = math.sqrt(-2 * math.log(u[i]))
        angle = 2 * math.pi * u[i + 1]
        z += [radius * math.cos(angle), radius * math.sin(angle)]
    return np.array(z[:z_dim], dtype=np.float32)


@pytest.mark.parametrize("seed", GOLDEN)
def test_golden_values(seed):
    z = latents([seed], 4)
    assert z.dtype == np.float32
    assert z.shape == (1, 4)
    assert np.allclose(z[0], GOLDEN[seed], rtol=5e-7, atol=0)


@given(seed=SEEDS, z_dim=st.integers(1, 300))
def test_any_seed_and_dimension_follow_the_definition(seed, z_dim):
    z = latents([seed], z_dim)
    assert z.shape == (1, z_dim)
    assert np.allclose(z[0], by_definition(seed, z_dim), rtol=1e-6, atol=1e-7)


@given(seeds=st.lists(SEEDS, max_size=150), z_dim=st.integers(1, 20))
def test_a_row_does_not_depend_on_its_batch(seeds, z_dim):
    z = latents(seeds, z_dim)
    assert z.shape == (len(seeds), z_dim)
    for row, seed in zip(z, seeds, strict=True):
        assert np.array_equal(row, latents([seed], z_dim)[0])


@given(seed=SEEDS, short=st.integers(1, 64), long=st.integers(1, 64))
def test_a_short_latent_begins_a_long_one(seed, short, long):
    short, long = sorted((short, long))
    assert np.array_equal(latents([seed], long)[:, :short], latents([seed], short))


@given(seeds=st.lists(SEEDS, min_size=1, max_size=5))
def test_arrays_and_lists_are_the_same(seeds):
    array = np.array(seeds, dtype=np.uint64)
    assert np.array_equal(latents(array, 3), latents(seeds, 3))
    assert np.array_equal(as_seeds(seeds), array)


def test_neighbouring_seeds_have_nothing_in_common():
    z = latents(range(2000), 64).astype(np.float64)
    correlation = [np.corrcoef(z[:-lag].ravel(), z[lag:].ravel())[0, 1] for lag in (1, 2, 64)]
    assert np.abs(correlation).max() < 0.015  # 5 standard deviations of 126,000 pairs
    assert len(np.unique(z, axis=0)) == 2000


def test_values_are_standard_normal():
    z = latents(range(4000), 50).astype(np.float64)
    num = z.size
    assert abs(z.mean()) < 5 / math.sqrt(num)
    assert abs(z.var() - 1) < 5 * math.sqrt(2 / num)
    assert abs(stats.skew(z, axis=None)) < 5 * math.sqrt(6 / num)
    assert abs(stats.kurtosis(z, axis=None)) < 5 * math.sqrt(24 / num)
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-4
    assert np.abs(z).max() > 4  # the tails are there


def test_dimensions_are_uncorrelated():
    z = latents(range(20_000), 16).astype(np.float64)
    correlation = np.corrcoef(z, rowvar=False) - np.eye(16)
    assert np.abs(correlation).max() < 0.036  # 5 standard deviations of 20,000 pairs


def test_every_value_is_finite_at_the_ends():
    seeds = [0, MAX_SEED, 2**63, 2**32, 2**53 + 1]
    assert np.isfinite(latents(seeds, 1001)).all()


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ([-1], r"seeds\[0\] is -1: a seed lies in 0 \.\. 18446744073709551615"),
        ([0, 2**64], r"seeds\[1\] is 18446744073709551616"),
        ([0.5], r"seeds\[0\] is 0\.5: a seed is an integer"),
        (["1"], r"seeds\[0\] is '1'"),
        ([True], r"seeds\[0\] is True"),
        ([None], r"seeds\[0\] is None"),
        (np.array([1.0]), r"seeds\[0\] is np\.float64\(1\.0\)"),
        (np.array([[1]], np.uint64), r"seeds\[0\] is array"),
        (np.array([-1]), r"seeds\[0\] is -1"),
    ],
)
def test_bad_seeds_are_named(seeds, message):
    with pytest.raises(ValueError, match=message):
        latents(seeds, 4)


@pytest.mark.parametrize("z_dim", [0, -3])
def test_a_latent_has_a_dimension(z_dim):
    with pytest.raises(ValueError, match=f"z_dim is {z_dim}"):
        latents([0], z_dim)


def test_no_seeds_give_no_rows():
    assert latents([], 7).shape == (0, 7)


def test_the_global_random_state_is_not_touched():
    before = np.random.get_state()[1].copy()
    latents(range(10), 10)
    assert np.array_equal(np.random.get_state()[1], before)


T = np.linspace(0, 1, 9)


@given(seed_0=SEEDS, seed_1=SEEDS, z_dim=st.integers(2, 128))
def test_slerp_keeps_ends_and_lies_on_the_arc(seed_0, seed_1, z_dim):
    z_0, z_1 = latents([seed_0, seed_1], z_dim)
    path = slerp(z_0, z_1, T)
    assert path.shape == (9, z_dim)
    assert path.dtype == np.float32
    assert np.allclose(path[0], z_0, atol=1e-5)
    assert np.allclose(path[-1], z_1, atol=1e-5)
    assert np.allclose(path[::-1], slerp(z_1, z_0, T), atol=1e-4)


@given(seed_0=SEEDS, seed_1=SEEDS)
def test_slerp_of_unit_vectors_turns_evenly(seed_0, seed_1):
    z = latents([seed_0, seed_1], 16).astype(np.float64)
    unit_0, unit_1 = (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32)
    path = slerp(unit_0, unit_1, T).astype(np.float64)
    assert np.allclose(np.linalg.norm(path, axis=1), 1, atol=1e-6)
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    assert np.allclose(steps, steps[0], atol=1e-5)


@pytest.mark.parametrize("factor", [1.0, 2.5, -1.0, 0.0])
def test_slerp_of_parallel_vectors_is_a_straight_line(factor):
    z_0 = latents([5], 8)[0]
    z_1 = (z_0 * np.float32(factor)).astype(np.float32)
    expected = (1 - T)[:, None] * z_0 + T[:, None] * z_1
    assert np.allclose(slerp(z_0, z_1, T), expected, atol=1e-6)
