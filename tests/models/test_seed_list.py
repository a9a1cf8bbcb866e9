"""Seeds on a command line: numbers and ranges, and what is neither."""

import argparse

import pytest

from models.seed_list import MOST_SEEDS, seeds_of


def test_seeds_are_numbers_and_ranges() -> None:
    assert seeds_of("1-4, 42,7-7") == [1, 2, 3, 4, 42, 7]
    assert seeds_of(str(2**64 - 1)) == [2**64 - 1]
    assert len(seeds_of(f"1-{MOST_SEEDS}")) == MOST_SEEDS


@pytest.mark.parametrize(
    ("text", "says"),
    [
        *((text, "neither a seed in 0 .. 2") for text in ("x", "1-", "-1", "", "1,,2", "٣")),
        (str(2**64), "neither a seed in 0 .. 2"),
        ("5-2", "whose end comes before its start"),
        (f"7,1-{MOST_SEEDS}", "more than 1,000,000 seeds"),
    ],
)
def test_what_is_no_seed_is_refused(text: str, says: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=says):
        seeds_of(text)
