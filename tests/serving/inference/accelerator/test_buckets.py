"""Rows are cut into the buckets that take the least time."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.inference.accelerator.buckets import cheapest_cuts, powers_of_two


@given(st.integers(1, 3000))
def test_buckets_are_powers_of_two_up_to_the_largest(max_rows: int) -> None:
    sizes = powers_of_two(max_rows)
    assert sizes[0] == 1
    assert sizes[-1] == max_rows
    assert all(a < b <= 2 * a for a, b in itertools.pairwise(sizes))


def test_where_time_follows_rows_little_is_wasted() -> None:
    """22 to 43 rows, a third or more of which was padding in buckets of 32 and 64."""
    seconds = {size: 2 + size for size in powers_of_two(64)}
    cuts = cheapest_cuts(seconds)
    assert cuts[34] == (32, 2)
    assert cuts[43] == (32, 8, 4)
    for num in range(22, 44):
        assert sum(cuts[num]) - num <= 0.2 * num


def test_where_a_run_costs_the_same_whatever_its_rows_none_is_cut() -> None:
    cuts = cheapest_cuts(dict.fromkeys(powers_of_two(64), 1.0))
    assert [len(each) for each in cuts] == [0, *[1] * 64]


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=6, unique=True).map(sorted),
    st.lists(st.floats(1e-4, 1.0), min_size=6, max_size=6),
)
def test_cuts_hold_all_rows_and_are_never_slower_than_one_run(
    sizes: list[int], times: list[float]
) -> None:
    seconds = dict(zip(sizes, times, strict=False))
    cuts = cheapest_cuts(seconds)
    assert len(cuts) == sizes[-1] + 1
    for num, buckets in enumerate(cuts):
        assert sum(buckets) >= num
        assert sum(buckets[:-1]) < max(num, 1)
        if num:
            whole = next(size for size in sizes if size >= num)
            assert sum(seconds[size] for size in buckets) <= seconds[whole] + 1e-9


@pytest.mark.parametrize("max_rows", [1, 3])
def test_few_rows_have_buckets_too(max_rows: int) -> None:
    assert cheapest_cuts(dict.fromkeys(powers_of_two(max_rows), 1.0))[max_rows] == (max_rows,)
