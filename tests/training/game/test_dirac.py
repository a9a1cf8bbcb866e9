"""The Dirac-GAN (Mescheder et al. 2018) through the code that trains: every remedy's eigenvalues.

Data: a point at 0. G = theta, D(x) = psi x. A round is a map of (theta, psi); its derivative at the
equilibrium is what decides about convergence, and its eigenvalues are known in closed form.
"""

import cmath
import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.networks import MLP
from training.config.training import TrainingConfig
from training.data import DataConfig
from training.engine.state import State
from training.engine.stepper import Stepper
from training.game.regularizers import Term
from training.optim.optimizers import Optimism, OptimizerConfig
from training.transforms.augmentation import AugmentConfig

C = 0.5  # f'(0)
STEP = 0.7
SMALL = 1e-4
CPU = torch.device("cpu")


class Point(nn.Module):
    """G: theta, whatever the latent."""

    def __init__(self, theta: float) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(theta, dtype=torch.float64))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return self.theta.expand(len(z), 1, 1, 1)


class Slope(nn.Module):
    """D: psi x."""

    def __init__(self, psi: float) -> None:
        super().__init__()
        self.psi = nn.Parameter(torch.tensor(psi, dtype=torch.float64))

    def forward(self, img: Tensor, label: Tensor | None = None) -> Tensor:
        return self.psi * img.flatten(1).sum(1)


class Origin:
    """The data."""

    device = CPU

    def __init__(self, batch_size: int) -> None:
        self._img = torch.zeros(batch_size, 1, 1, 1, dtype=torch.float64)

    def at(self, cur_nimg: int) -> tuple[Tensor, Tensor | None]:
        return self._img, None


def config(*terms: str, **options: object) -> TrainingConfig:
    sgd = OptimizerConfig(method="sgd", lr=STEP, betas=(0.0, 0.0))
    plain = TrainingConfig(
        recipe="dirac",
        data=DataConfig(conditional=False),
        network=MLP(z_dim=1),
        objective="minimax",
        regularizers=tuple(Term.parse(term) for term in terms),
        optim_G=sgd,
        optim_D=sgd,
        batch_size=2,
        total_kimg=1000,
        tick_kimg=1000,
    )
    return dataclasses.replace(plain, **options)  # type: ignore[arg-type]


def stepper(game: TrainingConfig, theta: float, psi: float) -> Stepper:
    state = State.of(game, Point(theta), Slope(psi), CPU)
    return Stepper(game, state, Origin(game.batch_size))


def place(played: Stepper) -> list[float]:
    return [parameter.item() for parameter in played.state.parameters()]


def eigenvalues(game: TrainingConfig, rounds: int = 1) -> list[complex]:
    """Of the rounds' derivative at the equilibrium, the upper half plane's last."""
    ends = []
    for start in ((0.0, 0.0), (SMALL, 0.0), (0.0, SMALL)):
        played = stepper(game, *start)
        for _ in range(rounds):
            played.step()
        ends.append(place(played))
    origin, *columns = np.array(ends)  # a batch's own noise moves even the equilibrium
    found = np.linalg.eigvals((np.array(columns) - origin).T / SMALL)
    return sorted((complex(value) for value in found), key=lambda value: value.imag)


def expect(game: TrainingConfig, value: complex, rounds: int = 1, rel: float = 1e-6) -> None:
    assert eigenvalues(game, rounds)[-1] == pytest.approx(value, rel=rel)


def flow(game: TrainingConfig) -> complex:
    """lambda of the differential equation, from mu = 1 + h lambda of simultaneous steps."""
    simultaneous = dataclasses.replace(game, update="simultaneous")
    return (eigenvalues(simultaneous)[-1] - 1) / STEP


@pytest.mark.parametrize("objective", ["minimax", "non-saturating", "relativistic"])
def test_without_a_remedy_the_players_circle(objective: str) -> None:
    """+-ic: the differential equation keeps its distance, a step of any size adds to it."""
    game = config(objective=objective)
    found = flow(game)
    assert found == pytest.approx(1j * C, rel=1e-6)
    assert abs(1 + STEP * found) > 1


def test_a_critic_circles_twice_as_fast() -> None:
    assert flow(config(objective="wasserstein")) == pytest.approx(1j, rel=1e-6)


@pytest.mark.parametrize(
    ("terms", "value"),
    [
        (["r1=0.3"], -0.15 + 0.476970j),
        (["r2=0.3"], -0.15 + 0.476970j),
        (["r1=0.3", "r2=0.3"], -0.3 + 1j * math.sqrt(C**2 - 0.3**2)),
        (["consensus=0.3"], -0.075 + 0.5j),
        (["zero-gp=0.15"], -0.15 + 0.476970j),  # without the paper's half
    ],
)
def test_each_penalty_damps_as_the_theory_says(terms: list[str], value: complex) -> None:
    assert flow(config(*terms)) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("gamma", [0.6, 1.5])
def test_r1_below_and_above_its_critical_gamma(gamma: float) -> None:
    expected = -gamma / 2 + cmath.sqrt(gamma**2 / 4 - C**2)
    found = (max(eigenvalues(config(f"r1={gamma}", update="simultaneous")), key=abs_of) - 1) / STEP
    assert found == pytest.approx(expected, abs=1e-5)


def abs_of(value: complex) -> tuple[float, float]:
    return value.imag, value.real


@pytest.mark.parametrize(
    ("objective", "value"), [("relativistic-average", 1j), ("relativistic-average-hinge", 2j)]
)
def test_averages_circle_too(objective: str, value: complex) -> None:
    """Both sides' terms pull: twice the turn of pairs, and twice a critic's."""
    assert flow(config(objective=objective)) == pytest.approx(value, rel=1e-6)


def test_instance_noise_damps_by_its_variance() -> None:
    game = config("instance-noise=0.8", batch_size=200_000, total_kimg=1e6)
    assert flow(game) == pytest.approx(-0.16 + 0.473709j, abs=2e-3)


def test_r1_is_taken_through_the_augmentation() -> None:
    """Contrast f = 2^N(0, 1/2): D sees f theta, and R1 damps by gamma E[f^2], not by gamma.

    E[f] = exp(s^2 / 2), E[f^2] = exp(2 s^2), s = ln(2) / 2.
    """
    gamma, variance = 0.3, (math.log(2) / 2) ** 2
    augment = AugmentConfig(policy=("contrast",))
    game = config(f"r1={gamma}", augment=augment, batch_size=200_000, total_kimg=1e6)
    damping, coupling = gamma * math.exp(2 * variance), C * math.exp(variance / 2)
    expected = -damping / 2 + cmath.sqrt(damping**2 / 4 - coupling**2)
    assert flow(game) == pytest.approx(expected, abs=2e-3)


def test_one_centred_penalties_have_a_kink_where_the_equilibrium_is() -> None:
    """(|psi| - 1)^2 pushes psi away from 0 at full force, however near to it psi is."""
    for name in ("wgan-gp", "dragan"):
        played = stepper(config(f"{name}=1", update="simultaneous"), 0.0, SMALL)
        played.step()
        assert place(played)[1] > 1


def test_two_time_scales_on_r1() -> None:
    fast = OptimizerConfig(method="sgd", lr=2 * STEP, betas=(0.0, 0.0))
    found = flow(config("r1=0.3", optim_D=fast))
    assert found == pytest.approx(-0.3 + cmath.sqrt(0.09 - 2 * C**2), abs=1e-6)


def test_two_time_scales_alone_stay_imaginary() -> None:
    fast = OptimizerConfig(method="sgd", lr=2 * STEP, betas=(0.0, 0.0))
    assert flow(config(optim_D=fast)) == pytest.approx(1j * math.sqrt(2) * C, abs=1e-6)


def test_a_step_of_each_update_is_the_theorys() -> None:
    expect(config("r1=0.3", update="simultaneous"), 0.895 + 0.333879j)
    expect(config("r1=0.3"), 0.83375 + 0.307995j)
    expect(config(), 0.93875 + 0.344599j)
    expect(config(steps_D=5), 0.69375 + 0.720216j)
    expect(config(update="extragradient"), 0.8775 + 0.35j)


def test_more_steps_of_g_turn_as_far_as_more_of_d() -> None:
    expect(config(steps_G=5), 0.69375 + 0.720216j)


def test_a_lazy_r1_makes_up_for_the_steps_it_skips() -> None:
    """Two rounds, one with twice the penalty: the product of the two rounds' maps."""
    rounds = [
        np.array(
            [[1 - STEP**2 * C**2, STEP * C * (1 - STEP * gamma)], [-STEP * C, 1 - STEP * gamma]]
        )
        for gamma in (0.6, 0.0)
    ]
    expected = max(np.linalg.eigvals(rounds[1] @ rounds[0]), key=lambda value: value.imag)
    expect(config("r1=0.3/2"), complex(expected), rounds=2)


def test_optimism_remembers_the_last_step() -> None:
    """mu^2 - (1 + 2 h lambda) mu + h lambda = 0, on (theta, psi) and their last steps."""
    game = config(update="simultaneous")
    columns = []
    for index in range(4):
        start = [0.0] * 4
        start[index] = SMALL
        played = stepper(game, start[0], start[1])
        for player, last in ((played.state.G, start[2]), (played.state.D, start[3])):
            player.optimism = Optimism(player.parameters)
            player.optimism.last[0].fill_(last)
        played.step()
        memory = [
            player.optimism.last[0].item()
            for player in (played.state.G, played.state.D)
            if player.optimism is not None
        ]
        columns.append([*place(played), *memory])
    found = sorted(np.linalg.eigvals(np.array(columns).T / SMALL), key=abs)
    upper = [complex(value) for value in found if value.imag > 0]
    assert upper == pytest.approx([0.142929 + 0.35j, 0.857071 + 0.35j], abs=1e-6)


@pytest.mark.parametrize("gamma", [1.0, 1.5, 2.0])
def test_alex_gda_damps_what_alternating_steps_turn(gamma: float) -> None:
    """Lee et al. 2024, with (theta, psi, the last move of theta) as what a round maps.

    psi' = psi - a t, t = theta + (gamma - 1) move; theta' = theta + a (gamma psi' + (1 - gamma)
    psi); gamma 1 is alternating.
    """
    a, more = STEP * C, gamma - 1
    move = [-(a**2) * gamma, a, -(a**2) * gamma * more]
    expected = np.linalg.eigvals([[1 + move[0], *move[1:]], [-a, 1, -a * more], move])
    game = config(update="alternating-extrapolation", extrapolation=gamma)
    columns = []
    for index in range(3):
        start = [0.0] * 3
        start[index] = SMALL
        played = stepper(game, start[0], start[1])
        played.state.G.last_move[0].fill_(start[2])
        played.step()
        columns.append([*place(played), played.state.G.last_move[0].item()])
    found = np.linalg.eigvals(np.array(columns).T / SMALL)
    assert np.sort_complex(found) == pytest.approx(np.sort_complex(expected), abs=1e-6)
    radius = abs(expected).max()
    assert radius == pytest.approx({1.0: 1.0, 1.5: 0.936824, 2.0: 0.879787}[gamma], abs=1e-6)


@pytest.mark.parametrize(("b1", "b2", "radius"), [(-0.5, 0.0, 0.986169), (-0.3, -0.3, 0.983033)])
def test_negative_momentum_damps_a_bilinear_game(b1: float, b2: float, radius: float) -> None:
    """Gidel et al. 2019, arXiv:1807.04740: (mu - 1)^2 (mu - b1)(mu - b2) + c^2 mu^3 = 0."""
    players = {
        f"optim_{name}": OptimizerConfig(method="sgd", lr=0.35, betas=(beta, 0.0))
        for name, beta in (("G", b1), ("D", b2))
    }
    played = stepper(config(objective="wasserstein", **players), 1.0, 0.0)
    places = []
    for _ in range(500):
        played.step()
        places.append(place(played))
    # Far out only the leading pair is left: three places satisfy its quadratic.
    (u, v, w) = (np.array(each) for each in places[-3:])
    trace, product = np.linalg.solve(np.stack([v, -u], axis=1), w)
    assert math.sqrt(product) == pytest.approx(radius, abs=1e-6)
    assert abs(trace) < 2 * math.sqrt(product)


def test_packs_pull_as_hard_as_they_have_images() -> None:
    """D(x, y) = psi (x + y): twice the slope, and R1 of a pack of two has twice the square."""
    single = flow(config("r1=0.3"))
    assert flow(config("r1=0.3", packing=2, batch_size=8)) == pytest.approx(2 * single, rel=1e-6)


def test_unrolling_lets_g_see_where_d_is_going() -> None:
    """G sees psi as psi - k eta theta / 2, which damps theta by k eta / 2."""
    steps, lr = 3, 0.2
    game = config(update="simultaneous", unrolled_steps=steps, unrolled_lr=lr)
    damping = steps * lr / 2
    assert flow(game) == pytest.approx(-damping / 2 + cmath.sqrt(damping**2 / 4 - C**2), abs=1e-6)


def test_lookahead_draws_a_growing_spiral_in() -> None:
    """(1 - alpha) I + alpha M^k: smaller than 1 although |M| > 1."""
    k, alpha = 5, 0.5
    mu = 1 + 1j * STEP * C
    game = config(update="simultaneous", lookahead_steps=k, lookahead_alpha=alpha)
    expected = (1 - alpha) + alpha * mu**k
    expect(game, expected, rounds=k)
    assert abs(expected) < 1 < abs(mu)


def test_the_uniform_average_stands_still_where_the_iterates_circle() -> None:
    game = config(average="uniform")
    played = stepper(game, 1.0, 0.0)
    seen = []
    for _ in range(40):
        played.step()
        seen.append(place(played)[0])
    assert played.state.G_ema.theta.item() == pytest.approx(np.mean(seen), abs=1e-6)
    assert abs(np.mean(seen)) < 0.1 < max(seen)


def test_weight_clipping_keeps_d_in_its_box() -> None:
    played = stepper(config("clip=0.01", objective="wasserstein"), 1.0, 0.0)
    played.step()
    assert place(played)[1] == pytest.approx(-0.01)


def test_parts_of_a_batch_add_up_to_it() -> None:
    whole, parts = (
        stepper(config("r1=0.3", batch_size=8, accumulate=num), 0.4, 0.2) for num in (1, 4)
    )
    for played in (whole, parts):
        played.step()
    assert place(parts) == pytest.approx(place(whole), rel=1e-12)
