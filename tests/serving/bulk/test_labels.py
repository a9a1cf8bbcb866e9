"""Labels are functions of the seed, with the shares that were asked for."""

from pathlib import Path

import numpy as np
import pytest

from serving.bulk.errors import PlanError
from serving.bulk.labels import cycled, read_labels, uniform, weighted

NAMES = ("cat", "dog", "7")


def test_all_classes_in_turn_are_the_labels_of_golden_images() -> None:
    seeds = np.arange(10, dtype=np.uint64)
    assert cycled(None, NAMES).of(seeds).tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    assert cycled("dog,0", NAMES).of(seeds).tolist() == [1, 0] * 5
    assert cycled("1", NAMES).of(seeds).tolist() == [1] * 10


def test_a_seed_has_its_label_in_every_plan() -> None:
    rule = weighted("0=1,2=3", NAMES)
    seeds = np.arange(1000, dtype=np.uint64)
    labels = rule.of(seeds)
    assert (rule.of(seeds[::-7]) == labels[::-7]).all()
    assert rule.of(seeds[:8]).tolist() == FROZEN


FROZEN = [2, 2, 2, 0, 2, 2, 2, 2]


def test_shares_are_the_weights() -> None:
    seeds = np.arange(200_000, dtype=np.uint64)
    labels = weighted("0=1,dog=0.5,2=2.5", NAMES).of(seeds)
    shares = np.bincount(labels, minlength=3) / len(seeds)
    assert np.abs(shares - [0.25, 0.125, 0.625]).max() < 0.005  # 4.5 standard deviations


def test_uniform_is_frozen_and_even() -> None:
    """The finaliser's published first outputs for the state 0."""
    first = uniform(np.array([0], np.uint64))[0]
    assert first == (0xE220A8397B1DCDAF >> 11) * 2.0**-53
    numbers = uniform(np.arange(2**64 - 50_000, 2**64, dtype=np.uint64))
    assert 0 <= numbers.min() < numbers.max() < 1
    counts = np.histogram(numbers, 10, (0, 1))[0]
    assert np.abs(counts - 5000).max() < 350


@pytest.mark.parametrize(
    ("make", "text", "words"),
    [
        (cycled, "3", r"allowed are 0 .. 2, or a name \(cat, dog, 7\)"),
        (cycled, "horse", "'horse'"),
        (cycled, "", "''"),
        (weighted, "0", "CLASS=WEIGHT|allowed are"),
        (weighted, "0=0", "a number above 0"),
        (weighted, "0=nan", "a number above 0"),
        (weighted, "0=inf", "a number above 0"),
        (weighted, "0=1,cat=2", "names class 0 twice"),
    ],
)
def test_is_refused_in_words(make, text: str, words: str) -> None:
    with pytest.raises(PlanError, match=words):
        make(text, NAMES)


def test_a_file_has_one_for_each_seed(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("cat\n2\n1\n")
    rule, labels = read_labels(path, 3, NAMES)
    assert labels.tolist() == [0, 2, 1]
    assert rule.kind == "listed"
    with pytest.raises(PlanError, match="holds 3 labels for 4 seeds"):
        read_labels(path, 4, NAMES)
    path.write_text("cat\ncow\n")
    with pytest.raises(PlanError, match="line 2 holds 'cow'"):
        read_labels(path, 2, NAMES)
