"""The Vendi score on sets whose number of kinds is known, and against its n x n definition."""

import numpy as np
import pytest

from training.evaluation.metrics.bootstrap import Resampling
from training.evaluation.metrics.vendi import vendi


def test_images_all_alike_count_as_one() -> None:
    assert vendi(np.tile([[3.0, 4.0]], (50, 1))).value == pytest.approx(1)


@pytest.mark.parametrize("num_kinds", [2, 5])
def test_as_many_as_there_are_orthogonal_kinds(num_kinds) -> None:
    assert vendi(np.tile(np.eye(8)[:num_kinds], (20, 1))).value == pytest.approx(num_kinds)


def test_it_is_the_definition() -> None:
    rows = np.random.default_rng(0).standard_normal((40, 6))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    values = np.linalg.eigvalsh(unit @ unit.T / 40)
    values = values[values > 1e-12]
    expected = np.exp(-(values * np.log(values)).sum())
    assert vendi(rows).value == pytest.approx(expected, rel=1e-6)


def test_the_interval_surrounds_it() -> None:
    rows = np.abs(np.random.default_rng(0).standard_normal((100, 6)))
    found = vendi(rows, Resampling(num=50))
    assert found.interval[0] < found.value < found.interval[1]
