"""Walks hit their waypoints, keep the norm and close where they should."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.latents import latents, walk


@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=5),
    st.integers(1, 12),
    st.integers(0, 20),
    st.booleans(),
)
def test_a_walk_starts_and_ends_where_it_should(
    seeds: list[int], z_dim: int, extra: int, loop: bool
) -> None:
    waypoints = latents(seeds, z_dim)
    z = walk(waypoints, len(seeds) + extra, loop=loop)
    assert z.shape == (len(seeds) + extra, z_dim)
    assert np.isfinite(z).all()
    assert (z[0] == waypoints[0]).all()
    if not loop:
        assert (z[-1] == waypoints[-1]).all()


@pytest.mark.parametrize("loop", [False, True])
def test_waypoints_on_the_way_are_met_exactly(loop: bool) -> None:
    waypoints = latents([1, 2, 3], 16)
    z = walk(waypoints, 12 if loop else 9, loop=loop)
    assert (z[[0, 4, 8]] == waypoints).all()


def unit_ends() -> np.ndarray:
    z = latents([5, 6], 64)
    ends: np.ndarray = z / np.linalg.norm(z, axis=1, keepdims=True)
    return ends


def test_the_norm_is_kept_on_the_way() -> None:
    norms = np.linalg.norm(walk(unit_ends(), 30), axis=1)
    assert np.abs(norms - 1).max() < 1e-5  # a straight line would dip to about 0.7


def test_frames_are_equal_steps_apart() -> None:
    steps = np.linalg.norm(np.diff(walk(unit_ends(), 10), axis=0), axis=1)
    assert np.ptp(steps) < 1e-5


def test_what_is_no_walk_is_refused() -> None:
    with pytest.raises(ValueError, match="waypoints has 1 rows"):
        walk(latents([1], 4), 5)
    with pytest.raises(ValueError, match="num_frames is 2"):
        walk(latents([1, 2, 3], 4), 2)
