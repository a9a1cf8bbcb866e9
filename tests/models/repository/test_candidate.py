"""The split of seeds between CURRENT and a candidate: frozen, monotone, even."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import RepositoryError
from models.repository.candidate import Candidate, position

seeds = st.integers(0, 2**64 - 1)
shares = st.floats(0.000001, 100).map(lambda share: float(f"{share:.6f}")).filter(bool)


@pytest.mark.parametrize(
    ("seed", "stands"),
    [  # splitmix64 of its authors (prng.di.unimi.it/splitmix64.c), first output from state seed
        (0, 0xE220A8397B1DCDAF),
        (1, 0x910A2DEC89025CC1),
        (42, 0xBDD732262FEB6E95),
        (1234567, 0x599ED017FB08FC85),
        (2**64 - 1, 0xE4D971771B652C20),
    ],
)
def test_the_hash_is_frozen(seed, stands):
    assert position(seed) == stands


@given(seeds, shares, shares)
def test_a_larger_share_only_moves_seeds_to_the_candidate(seed, one, other):
    small, large = sorted((one, other))
    assert Candidate(2, large).takes(seed) or not Candidate(2, small).takes(seed)


@given(seeds, shares)
def test_the_same_seed_goes_the_same_way_whatever_the_version(seed, share):
    assert Candidate(2, share).takes(seed) == Candidate(7, share).takes(seed)
    assert Candidate(2, 100).takes(seed)


@pytest.mark.parametrize("share", [0.5, 1, 10, 33.3, 50, 99])
@pytest.mark.parametrize("first", [0, 10**6, 2**63])
@pytest.mark.parametrize("step", [1, 2, 1000])
def test_a_share_is_that_share_of_the_seeds(share, first, step):
    """As far as chance lets it be, for the seeds that people use: rising from anywhere."""
    num = 20_000
    candidate = Candidate(2, share)
    taken = sum(candidate.takes(first + step * index) for index in range(num))
    p = share / 100
    assert abs(taken / num - p) < 4.5 * np.sqrt(p * (1 - p) / num)


@given(st.integers(1, 999_999_999), shares | st.floats(0, 100) | st.floats())
def test_its_text_comes_back(version, share):
    """Of any share: what could not be read again is refused, not written."""
    try:
        candidate = Candidate(version, share)
    except RepositoryError:
        assert not 0.0000005 < share <= 100
    else:
        assert Candidate.parse(f"{candidate}\n") == candidate
        assert abs(candidate.share_percent - share) < 0.000001


def test_a_share_is_what_is_written():
    assert Candidate(2, 100 / 3).share_percent == 33.333333
    assert Candidate(2, 0.0000019).share_percent == 0.000002


@pytest.mark.parametrize(
    "text",
    ["", "2", "2 10", "0 10%", "2 10 %", "2 -1%", "2 1e1%", "x 10%", "2 nan%", "02 10%", "2 ٣%"],
)
def test_another_text_is_refused(text):
    with pytest.raises(RepositoryError, match="must look like '2 10%'"):
        Candidate.parse(text)


@pytest.mark.parametrize("share", [0.0, 1e-7, -1, 100.0000001, 100.1, float("nan"), float("inf")])
def test_a_share_that_is_none(share):
    with pytest.raises(RepositoryError, match=r"allowed is 0\.000001 to 100"):
        Candidate(2, share)


@pytest.mark.parametrize("share", ["0", "0.000000", "100.1", "999"])
def test_a_text_of_a_share_that_is_none(share):
    with pytest.raises(RepositoryError, match=r"allowed is 0\.000001 to 100"):
        Candidate.parse(f"2 {share}%")
