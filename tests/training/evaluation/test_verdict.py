from typing import Any

import pytest

from models.bundle.manifest import Metric
from training.evaluation.verdict import Circumstances, advice_on_data, share, verdict

MANY = Circumstances(num_images=50_000, augmented=False)
FEW = Circumstances(num_images=300, augmented=False)


def metric(name: str, value: float, floor: float, ceiling: float, **more: Any) -> Metric:
    return Metric(name=name, value=value, protocol={"floor": floor, "ceiling": ceiling, **more})


GOOD = (
    metric("frechet_distance", 0.11, 0.106, 28.6),
    metric("precision", 0.96, 0.96, 0.0),
    metric("coverage", 0.96, 0.97, 0.0),
)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (metric("coverage", 0.485, 0.97, 0.0), 0.5),
        (metric("coverage", 0.99, 0.97, 0.0), 1.0),  # better than real images is no more than real
        (metric("frechet_distance", 1.0, 0.1, 10.0), 0.5),  # a factor of ten is half of a hundred
        (metric("frechet_distance", 20.0, 0.1, 10.0), 0.0),
        (metric("recall", 0.5, 0.9, 0.85), None),  # noise has it, too: it says nothing
        (metric("recall", 0.78, 0.97, 0.66), None),  # of digits that can't be told from real ones
        (metric("memorised", 0.5, 0.01, 0.0), None),
        (metric("precision", float("nan"), 0.9, 0.0), None),
    ],
)
def test_a_figures_share_of_the_way_from_noise_to_real(
    found: Metric, expected: float | None
) -> None:
    assert share(found) == (None if expected is None else pytest.approx(expected))


def test_the_worst_figure_is_what_counts() -> None:
    blotches = (metric("frechet_distance", 4.0, 0.1, 30.0), metric("precision", 0.91, 0.95, 0.0))
    first, second = verdict(blotches, MANY)
    assert "The worst figure, frechet_distance, is 35% of the way from noise to real" in first
    assert first.startswith("verdict: poor")
    assert "the best, precision, is 96%" in first
    assert "--total-kimg" in second
    assert verdict(GOOD, MANY)[0].startswith("verdict: by these figures hardly to be told")


def test_what_to_try_next_depends_on_the_data_and_on_the_training() -> None:
    poor = (*GOOD, metric("coverage", 0.3, 0.97, 0.0))
    assert "few images (300): add --augment.policy diffaugment" in verdict(poor, FEW)[1]
    augmented = Circumstances(num_images=300, augmented=True)
    assert "few images" not in verdict(poor, augmented)[1]
    stale = Circumstances(num_images=50_000, augmented=False, is_stale=True)
    assert "likely to gain nothing" in verdict(poor, stale)[1]
    copies = (*GOOD, metric("memorised", 0.4, 0.01, 0.0))
    assert "40% of the images are copies" in verdict(copies, MANY)[1]


def test_without_figures_nothing_is_said() -> None:
    assert verdict((), FEW) == []


def test_few_images_are_told_before_the_training() -> None:
    assert "few images (300): add --augment.policy" in str(advice_on_data(FEW))
    assert advice_on_data(MANY) == []
    assert advice_on_data(Circumstances(num_images=300, augmented=True)) == []
