"""Ranges of seeds: what is refused, and that parts of them are the whole."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.latents import MAX_SEED
from serving.bulk.errors import PlanError
from serving.bulk.seeds import Seeds, expand, make_seeds, parse_seeds, read_seeds


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=8),
    st.integers(0, MAX_SEED - 1000),
    st.integers(1, 7),
)
def test_parts_one_after_the_other_are_the_whole(lengths: list[int], first: int, part: int) -> None:
    ranges = []
    for length in lengths:
        ranges.append((first, first + length - 1))
        first += length + 2
    seeds = Seeds(tuple(reversed(ranges)))
    parts = [
        expand(seeds.part(start, min(start + part, len(seeds))))
        for start in range(0, len(seeds), part)
    ]
    assert (np.concatenate(parts) == expand(seeds.ranges)).all()
    assert len(seeds) == sum(lengths)


def test_the_order_is_that_of_the_command_line_and_neighbours_are_joined() -> None:
    seeds = parse_seeds("7, 3-5,6,0")
    assert expand(seeds.ranges).tolist() == [7, 3, 4, 5, 6, 0]
    assert list(seeds.texts()) == ["7", "3-6", "0"]
    assert seeds.digest == parse_seeds("7,3,4,5-6,0").digest != parse_seeds("0,3-7").digest


def test_the_largest_seed_is_one() -> None:
    seeds = parse_seeds(f"{MAX_SEED - 1}-{MAX_SEED}")
    assert expand(seeds.ranges).tolist() == [MAX_SEED - 1, MAX_SEED]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "neither a seed"),
        ("1,,2", "neither a seed"),
        ("1-2-3", "neither a seed"),
        ("-1", "neither a seed"),
        ("1.5", "neither a seed"),
        ("9-3", "the end of a range comes before"),
        (str(MAX_SEED + 1), "a seed lies in 0 .. 18446744073709551615"),
        (f"0-{MAX_SEED + 1}", "a seed lies in"),
        ("5-9,0-5", "names seed 5 twice"),
        ("4,4", "names seed 4 twice"),
        (f"0-{MAX_SEED}", "split the plan"),
    ],
)
def test_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(PlanError, match=words):
        parse_seeds(text)


def test_a_file_has_seeds_ranges_and_comments(tmp_path: Path) -> None:
    path = tmp_path / "seeds.txt"
    path.write_text("# chosen\n42\n\n7-9  # three\n")
    assert expand(read_seeds(path).ranges).tolist() == [42, 7, 8, 9]
    path.write_text("42\nforty\n")
    with pytest.raises(PlanError, match=r"--seeds-from .*seeds.txt, line 2 holds 'forty'"):
        read_seeds(path)
    path.write_text("# none\n")
    with pytest.raises(PlanError, match="names no seed"):
        read_seeds(path)
    with pytest.raises(PlanError, match="name a text file"):
        read_seeds(tmp_path)


def test_no_seed_at_all_is_refused() -> None:
    with pytest.raises(PlanError, match="names no seed"):
        make_seeds([], option="--seeds")
