import pytest
import torch

from training.engine.meters import Meters


def test_means_are_over_the_steps_that_a_term_came_in() -> None:
    meters = Meters()
    meters.add(("a", "b"), torch.tensor([1.0, 10.0]))
    meters.add(("a",), torch.tensor([3.0]))
    meters.add(("a", "b"), torch.tensor([5.0, 20.0]))
    assert meters.means() == pytest.approx({"a": 3.0, "b": 15.0})


def test_reset_forgets_and_the_callers_tensor_stays() -> None:
    meters = Meters()
    values = torch.tensor([1.0])
    meters.add(("a",), values)
    meters.add(("a",), values)
    assert values.item() == 1.0
    meters.reset()
    assert meters.means() == {}
