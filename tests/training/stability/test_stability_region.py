"""The region's border is where rounds of the rule begin to expand."""

from typing import Any

import numpy as np
import pytest
import torch

from training.stability.rounds.frozen_optimizers import plain
from training.stability.rounds.round_operator import DenseJacobian, RoundOperator
from training.stability.rounds.stability_region import region_of
from training.stability.spectrum import dense_spectrum

STEP = 0.5


def turning(x: complex, optimizer: Any, update: str) -> RoundOperator:
    """A game of two parameters whose flow, times the step, has the eigenvalues x and its pair."""
    value = x / STEP
    matrix = torch.tensor([[value.real, -value.imag], [value.imag, value.real]]).double()
    return RoundOperator(
        jacobian=DenseJacobian(matrix, {"G": 1, "D": 1}),
        optimizers={"G": optimizer, "D": optimizer},
        update=update,
    )


def radius(played: RoundOperator) -> float:
    return dense_spectrum(played.apply, played.size, "LM").radius


@pytest.mark.parametrize(
    ("optimizer", "update"),
    [
        (plain(STEP), "simultaneous"),
        (plain(STEP, 0.5, damped=True), "simultaneous"),
        (plain(STEP, -0.3, damped=True), "simultaneous"),
        (plain(STEP, optimistic=True), "simultaneous"),
        (plain(STEP), "extragradient"),
    ],
    ids=["plain", "momentum", "negative momentum", "optimistic", "extragradient"],
)
def test_rounds_expand_beyond_the_border(optimizer: Any, update: str) -> None:
    region = region_of(turning(-0.1 + 0j, optimizer, update))
    assert region is not None
    assert region.is_exact
    middle = -0.5 if update == "extragradient" else region.border.real.min() / 2
    far = [x for x in region.border[::7] if abs(x) > 0.2]
    assert len(far) > 10
    for x in far:
        inside, outside = (middle + scale * (x - middle) for scale in (0.97, 1.03))
        assert radius(turning(x, optimizer, update)) == pytest.approx(1, abs=1e-9)
        assert radius(turning(outside, optimizer, update)) > 1
        if not optimizer.optimistic:  # whose region has a dent
            assert radius(turning(inside, optimizer, update)) < 1


def test_turns_have_a_guide_and_other_rules_no_region() -> None:
    guide = region_of(turning(-0.1 + 0j, plain(STEP), "alternating"))
    assert guide is not None
    assert not guide.is_exact
    assert region_of(turning(-0.1 + 0j, plain(STEP), "alternating-extrapolation")) is None
    mixed = turning(-0.1 + 0j, plain(STEP), "simultaneous")
    mixed = RoundOperator(
        jacobian=mixed.jacobian, optimizers={"G": plain(STEP), "D": plain(STEP, 0.5, damped=True)}
    )
    assert region_of(mixed) is None


def test_the_border_of_plain_steps_is_a_circle() -> None:
    region = region_of(turning(-0.1 + 0j, plain(STEP), "simultaneous"))
    assert region is not None
    assert np.abs(region.border + 1) == pytest.approx(np.ones(len(region.border)))
