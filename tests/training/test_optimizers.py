import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training.errors import ConfigError
from training.optimizers import METHODS, OptimizerConfig
from training.state import Seat

OK, TRIPPED = torch.zeros(()), torch.ones(())


def seat_of(**options: Any) -> Seat:
    network = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(network.weight, 2.0)
    return Seat(network, OptimizerConfig(**options))


def weight(seat: Seat) -> float:
    return seat.parameters[0].item()


def gradient(value: float) -> tuple[Tensor, ...]:
    return (torch.full((1, 1), value, dtype=torch.float64),)


def test_sgd_is_gradient_descent() -> None:
    seat = seat_of(method="sgd", lr=0.1, betas=(0.0, 0.0))
    seat.move(gradient(3.0), OK)
    assert weight(seat) == pytest.approx(1.7)


def test_rmsprop_divides_by_the_root_of_the_second_moment() -> None:
    seat = seat_of(method="rmsprop", lr=0.1, betas=(0.0, 0.9))
    seat.move(gradient(3.0), OK)
    assert weight(seat) == pytest.approx(2 - 0.1 * 3 / (0.1 * 9) ** 0.5, rel=1e-6)


def test_optimistic_adam_is_daskalakis_algorithm_1() -> None:
    """w - 2 lr m_t / root v_t + lr m_(t-1) / root v_(t-1), with bias-corrected moments."""
    beta1, beta2, lr = 0.5, 0.9, 0.1
    seat = seat_of(method="optimistic-adam", lr=lr, betas=(beta1, beta2), eps=1e-12)
    w, m, v, last = 2.0, 0.0, 0.0, 0.0
    for step, g in enumerate((3.0, -1.0, 0.5), 1):
        seat.move(gradient(g), OK)
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        direction = m / (1 - beta1**step) / (v / (1 - beta2**step)) ** 0.5
        w, last = w - 2 * lr * direction + lr * last, direction
        assert weight(seat) == pytest.approx(w, rel=1e-9)


def test_fused_adam_is_torchs_bit_for_bit_and_reads_its_state() -> None:
    torch.manual_seed(0)
    config = OptimizerConfig(method="adam", lr=0.1, betas=(0.5, 0.9))
    seat, twin = Seat(nn.Linear(3, 2), config), nn.Linear(3, 2)
    twin.load_state_dict(seat.network.state_dict())
    parameters = list(twin.parameters())
    torchs = torch.optim.Adam(parameters, lr=0.1, betas=(0.5, 0.9), eps=1e-8, fused=True)
    for step in range(6):
        if step == 3:  # each goes on with what the other remembers
            saved = copy.deepcopy(seat.state_dict())
            seat.load_state_dict(
                {"optimizer": copy.deepcopy(torchs.state_dict()), "optimism": None}
            )
            torchs.load_state_dict(saved["optimizer"])
        gradients = tuple(torch.randn_like(each) for each in parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        torchs.step()
        seat.move(gradients, OK)
        for ours, theirs in zip(seat.parameters, parameters, strict=True):
            assert torch.equal(ours, theirs)
    assert [each["step"].item() for each in seat.optimizer.state.values()] == [6, 6]


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_raised_flag_moves_nothing_whatever_the_method(method: str) -> None:
    seat = seat_of(method=method, betas=(0.5, 0.0 if method == "sgd" else 0.9))
    seat.move(gradient(1.0), OK)
    before = weight(seat)
    seat.move(gradient(float("nan")), TRIPPED)
    assert weight(seat) == before
    seat.move(gradient(1.0), OK)
    assert weight(seat) < before


@pytest.mark.parametrize("method", sorted(METHODS))
def test_new_rates_count_from_the_next_step(method: str) -> None:
    seat = seat_of(method=method, betas=(0.0, 0.0 if method == "sgd" else 0.9))
    seat.set_rates(1e-30, (0.0, 0.0 if method == "sgd" else 0.9))
    seat.move(gradient(1.0), OK)
    assert weight(seat) == pytest.approx(2.0, abs=1e-12)


def test_sgd_with_a_second_beta_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"betas is \(0\.5, 0\.9\).*sgd has no second moment"):
        OptimizerConfig(method="sgd", betas=(0.5, 0.9)).check("optim_D")


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ConfigError, match="method is 'newton', allowed: adam"):
        OptimizerConfig(method="newton").check("optim_D")
