import pytest
import torch

from training.engine.finite_guard import Guard

NAMES = ("loss", "gradient")


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_the_first_bad_value_is_named_with_its_step(bad: float) -> None:
    guard = Guard(torch.device("cpu"), cur_nimg=100, round_nimg=10)
    for step in range(6):
        guard.inspect(NAMES, torch.tensor([1.0, bad if step == 3 else 2.0]))
        guard.end_round()
    non_finite = guard.non_finite()
    assert non_finite is not None
    assert (non_finite.terms, non_finite.cur_nimg) == (("gradient",), 130)
    assert guard.found_inf == 1


def test_what_follows_the_first_trip_is_no_news() -> None:
    guard = Guard(torch.device("cpu"), cur_nimg=0, round_nimg=1)
    guard.inspect(("first",), torch.tensor([torch.nan]))
    guard.inspect(NAMES, torch.tensor([torch.nan, torch.nan]))
    non_finite = guard.non_finite()
    assert non_finite is not None
    assert non_finite.terms == ("first",)


def test_finite_values_trip_nothing() -> None:
    guard = Guard(torch.device("cpu"), cur_nimg=0, round_nimg=1)
    guard.inspect(NAMES, torch.tensor([3e38, -3e38]))
    assert guard.non_finite() is None
    assert guard.found_inf == 0
