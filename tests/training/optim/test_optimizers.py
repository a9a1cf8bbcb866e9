import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training.engine.state import PlayerState
from training.errors import ConfigError
from training.optim.optimizers import METHODS, OptimizerConfig, set_rates, step_unless

OK, TRIPPED = torch.zeros(()), torch.ones(())


def player_of(**options: Any) -> PlayerState:
    network = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(network.weight, 2.0)
    return PlayerState(network, OptimizerConfig(**options))


def weight(player: PlayerState) -> float:
    return player.parameters[0].item()


def gradient(value: float) -> tuple[Tensor, ...]:
    return (torch.full((1, 1), value, dtype=torch.float64),)


def test_sgd_is_gradient_descent() -> None:
    player = player_of(method="sgd", lr=0.1, betas=(0.0, 0.0))
    player.move(gradient(3.0), OK)
    assert weight(player) == pytest.approx(1.7)


def test_rmsprop_divides_by_the_root_of_the_second_moment() -> None:
    player = player_of(method="rmsprop", lr=0.1, betas=(0.0, 0.9))
    player.move(gradient(3.0), OK)
    assert weight(player) == pytest.approx(2 - 0.1 * 3 / (0.1 * 9) ** 0.5, rel=1e-6)


def test_optimistic_adam_is_daskalakis_algorithm_1() -> None:
    """w - 2 lr m_t / root v_t + lr m_(t-1) / root v_(t-1), with bias-corrected moments."""
    beta1, beta2, lr = 0.5, 0.9, 0.1
    player = player_of(method="optimistic-adam", lr=lr, betas=(beta1, beta2), eps=1e-12)
    w, m, v, last = 2.0, 0.0, 0.0, 0.0
    for step, g in enumerate((3.0, -1.0, 0.5), 1):
        player.move(gradient(g), OK)
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        direction = m / (1 - beta1**step) / (v / (1 - beta2**step)) ** 0.5
        w, last = w - 2 * lr * direction + lr * last, direction
        assert weight(player) == pytest.approx(w, rel=1e-9)


def test_fused_adam_is_torchs_bit_for_bit_and_reads_its_state() -> None:
    torch.manual_seed(0)
    config = OptimizerConfig(method="adam", lr=0.1, betas=(0.5, 0.9))
    player, twin = PlayerState(nn.Linear(3, 2), config), nn.Linear(3, 2)
    twin.load_state_dict(player.network.state_dict())
    parameters = list(twin.parameters())
    torchs = torch.optim.Adam(parameters, lr=0.1, betas=(0.5, 0.9), eps=1e-8, fused=True)
    for step in range(6):
        if step == 3:  # each goes on with what the other remembers
            saved = copy.deepcopy(player.state_dict())
            player.load_state_dict(
                {"optimizer": copy.deepcopy(torchs.state_dict()), "optimism": None}
            )
            torchs.load_state_dict(saved["optimizer"])
        gradients = tuple(torch.randn_like(each) for each in parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        torchs.step()
        player.move(gradients, OK)
        for ours, theirs in zip(player.parameters, parameters, strict=True):
            assert torch.equal(ours, theirs)
    assert [each["step"].item() for each in player.optimizer.state.values()] == [6, 6]


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_raised_flag_moves_nothing_whatever_the_method(method: str) -> None:
    player = player_of(method=method, betas=(0.5, 0.9 if METHODS[method].second_moment else 0.0))
    player.move(gradient(1.0), OK)
    before = weight(player)
    player.move(gradient(float("nan")), TRIPPED)
    assert weight(player) == before
    player.move(gradient(1.0), OK)
    assert weight(player) < before


@pytest.mark.parametrize("method", sorted(METHODS))
def test_new_rates_count_from_the_next_step(method: str) -> None:
    player = player_of(method=method, betas=(0.0, 0.9 if METHODS[method].second_moment else 0.0))
    set_rates(player.optimizer, 1e-30, (0.0, 0.9 if METHODS[method].second_moment else 0.0))
    player.move(gradient(1.0), OK)
    assert weight(player) == pytest.approx(2.0, abs=1e-12)


def test_negative_momentum_is_heavy_ball_below_zero() -> None:
    """Gidel et al. 2019, eq. 3: w moves by -lr (g_1 + b g_0), b = -0.5."""
    player = player_of(method="sgd", lr=0.1, betas=(-0.5, 0.0))
    for value in (3.0, 1.0):
        player.move(gradient(value), OK)
    assert weight(player) == pytest.approx(2 - 0.1 * 3 - 0.1 * (1 - 0.5 * 3))


def test_negative_momentum_of_adam_keeps_its_means_unbiased() -> None:
    player = player_of(method="adam", lr=0.1, betas=(-0.5, 0.9), eps=1e-12)
    w, m, v = 2.0, 0.0, 0.0
    for step, g in enumerate((3.0, -1.0, 0.5), 1):
        player.move(gradient(g), OK)
        m, v = -0.5 * m + 1.5 * g, 0.9 * v + 0.1 * g**2
        w -= 0.1 * m / (1 - (-0.5) ** step) / (v / (1 - 0.9**step)) ** 0.5
        assert weight(player) == pytest.approx(w, rel=1e-9)


@pytest.mark.parametrize(
    ("method", "betas", "says"),
    [
        ("rmsprop", (-0.5, 0.9), r"allowed: a first one in \[0, 1\)"),
        ("sgd", (-1.0, 0.0), r"allowed: a first one in \(-1, 1\)"),
        ("adam", (0.5, -0.1), r"a second one in \[0, 1\)"),
    ],
)
def test_betas_beyond_what_a_method_has_are_refused(
    method: str, betas: tuple[float, float], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        OptimizerConfig(method=method, betas=betas).check("optim_D")


@pytest.mark.parametrize(
    ("method", "moves"),
    [
        # The norms are 5 and 12, both together 13.
        ("normalized-sgd", ([3 / 13, 4 / 13], [12 / 13])),
        ("normalized-sgd-by-layer", ([3 / 5, 4 / 5], [1.0])),
    ],
)
def test_normalised_steps_have_one_length(method: str, moves: tuple[list[float], ...]) -> None:
    """Jelassi et al. 2022: all tensors by their common norm, or each by its own."""
    network = nn.ParameterList([torch.zeros(2), torch.zeros(1)])
    player = PlayerState(network, OptimizerConfig(method=method, lr=0.1, betas=(0.5, 0.0)))
    given = (torch.tensor([3.0, 4.0]), torch.tensor([12.0]))
    for factor in (1.0, 1e4):  # however large gradients are
        player.move(tuple(factor * each for each in given), OK)
    for parameter, move in zip(player.parameters, moves, strict=True):
        expected = [-0.1 * (1 + 1.5) * each for each in move]
        assert parameter.tolist() == pytest.approx(expected, rel=1e-5)


def test_no_gradient_is_no_step_and_no_division_by_zero() -> None:
    player = player_of(method="normalized-sgd", lr=0.1, betas=(0.0, 0.0))
    player.move(gradient(0.0), OK)
    assert weight(player) == 2.0


def test_sgd_with_a_second_beta_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"betas is \(0\.5, 0\.9\).*sgd has no second moment"):
        OptimizerConfig(method="sgd", betas=(0.5, 0.9)).check("optim_D")


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ConfigError, match="method is 'newton', allowed: adam"):
        OptimizerConfig(method="newton").check("optim_D")


@pytest.mark.parametrize(
    ("method", "beta2", "moments"),
    [
        ("rmsprop", 0.9, ("square_avg", "momentum_buffer")),
        ("normalized-sgd", 0.0, ("momentum_buffer",)),  # a new tensor in every step
    ],
)
def test_a_step_that_asks_nothing_is_the_same_or_is_none(
    method: str, beta2: float, moments: tuple[str, ...]
) -> None:
    """Of an optimiser on a GPU that doesn't know the flag: reading it would wait for the GPU."""
    options = {"method": method, "lr": 0.1, "betas": (0.5, beta2)}
    plain, asks_nothing = player_of(**options), player_of(**options)

    def step(flag: Tensor, value: float) -> None:
        (parameter,) = asks_nothing.parameters
        (parameter.grad,) = gradient(value)
        step_unless(asks_nothing.optimizer, flag)

    step(TRIPPED, float("nan"))  # before there are any moments
    assert weight(asks_nothing) == 2.0
    for value in (3.0, -1.0, 0.5):
        plain.move(gradient(value), OK)
        step(OK, value)
        assert weight(asks_nothing) == weight(plain)
        step(TRIPPED, float("inf"))
        assert weight(asks_nothing) == weight(plain)
    (remembered,) = asks_nothing.optimizer.state.values()
    (expected,) = plain.optimizer.state.values()
    for name in moments:
        assert torch.equal(remembered[name], expected[name])
