"""Gamma's advice against the closed form, and on a run."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.stability.conftest import MakeRun
from training.engine.checkpoint import read
from training.errors import StabilityError
from training.game.forward import Batch
from training.game.losses import Game
from training.game.regularizers import Term
from training.optim.schedules import Schedule
from training.optim.unrolled import descent
from training.stability.__main__ import main
from training.stability.closed_form.toy_games import Point, Slope, dirac
from training.stability.critical_weights import critical_weights, rounds_at
from training.stability.damping import At, Damping, Mode, damping
from training.stability.field import VectorField, loss_on
from training.stability.memory import Held, needed_bytes
from training.stability.rounds.frozen_optimizers import FrozenOptimizer, plain
from training.stability.rounds.round_operator import DenseJacobian, RoundOperator
from training.stability.run_game import RunGame
from training.stability.spectrum import matrix_of

ONE = plain(1.0)
R1 = (Term.parse("r1=0.3"),)
STOPPED = ("optim_G.lr=0@0.5", "optim_D.lr=0@0.5")


def dirac_at(gamma: float, G: FrozenOptimizer = ONE, D: FrozenOptimizer = ONE) -> RoundOperator:
    at = dirac(f"r1={gamma}").field().at()
    return RoundOperator(jacobian=at, optimizers={"G": G, "D": D})


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.6])
def test_the_dirac_games_critical_gamma_is_one(gamma: float) -> None:
    found = damping(dirac_at, gamma)
    assert found.advice == pytest.approx(1.0, rel=1e-6)
    (mode,) = found.modes
    assert mode.slope.real == pytest.approx(-0.5, rel=1e-6)
    assert mode.share_G == pytest.approx(0.5, rel=1e-6)
    halved, critical, doubled = found.solved
    assert halved[1] == pytest.approx(-0.25 + 0.433013j, abs=1e-6)
    assert critical[1] == pytest.approx(-0.5, abs=1e-4)  # defective there
    # Twice as much: one of the two comes back towards 0.
    assert doubled[2] == pytest.approx(-1 + 0.75**0.5, abs=1e-6)


@pytest.mark.parametrize("gamma", [0.71, 0.9])
def test_what_is_damped_well_keeps_its_weight(gamma: float) -> None:
    # lambda = -gamma/2 +- i sqrt(1/4 - gamma^2/4): a damping ratio of gamma.
    found = damping(dirac_at, gamma)
    assert found.keeps
    assert found.advice == gamma
    assert found.solved == ()


def test_the_law_gives_the_damping_at_other_weights() -> None:
    found = damping(dirac_at, 0.3)
    assert not found.keeps
    assert [found.ratio_at(gamma) for gamma in (0.1, 0.3, 0.9, 4.0)] == pytest.approx(
        [0.1, 0.3, 0.9, 1.0], abs=1e-6
    )
    assert damping(dirac_at, 1.5).ratio_at(1.5) is None


def test_beyond_it_nothing_turns() -> None:
    found = damping(dirac_at, 1.5)
    assert found.advice is None
    assert not any(mode.turns for mode in found.modes)


@pytest.mark.parametrize(("rate_G", "rate_D"), [(1.0, 4.0), (0.5, 0.02), (3e-14, 1e-14)])
@pytest.mark.parametrize("is_scale", [False, True], ids=["rate", "scale of Adam"])
def test_both_rates_decide_where_ringing_ends(
    rate_G: float, rate_D: float, *, is_scale: bool
) -> None:
    """-h_D gamma/2 +- sqrt(h_D^2 gamma^2/4 - h_G h_D c^2): critical at 2c sqrt(h_G/h_D)."""
    G, D = plain(rate_G), plain(rate_D)
    if is_scale:
        G, D = (
            replace(plain(1e-3), scale=torch.full((1,), 1e3 * rate).double())
            for rate in (rate_G, rate_D)
        )
    critical = (rate_G / rate_D) ** 0.5
    weight = 0.3 * critical
    found = damping(lambda gamma: dirac_at(gamma, G, D), weight)
    (mode,) = found.modes
    turn = (rate_G * rate_D / 4 - (rate_D * weight / 2) ** 2) ** 0.5
    assert mode.value / rate_D == pytest.approx((-rate_D * weight / 2 + 1j * turn) / rate_D)
    assert mode.slope.real == pytest.approx(-rate_D / 2, rel=1e-6)
    assert mode.share_G == pytest.approx(0.5, rel=1e-6)
    assert mode.damping_ratio == pytest.approx(0.3, rel=1e-6)
    assert found.advice == pytest.approx(critical, rel=1e-6)
    # A rate's own derivative, by a difference: d lambda / d ln(h_G) = share_G lambda.
    heavier = damping(lambda gamma: dirac_at(gamma, G.scaled(1.0001), D), weight).modes[0]
    per_log = (heavier.value - mode.value) / np.log(1.0001)
    rows = dirac_at(weight, G, D)
    assert per_log == pytest.approx(_of_G(rows, mode.value), rel=1e-3)


def _of_G(played: RoundOperator, value: complex) -> complex:
    """Share_G lambda from the dense flow, the share before its real part is taken."""
    values, right = np.linalg.eig(matrix_of(played.preconditioned, 2))
    left = np.linalg.inv(right)
    (index,) = np.flatnonzero(np.abs(values - value) < 1e-6 * abs(value))
    return complex(left[index, 0] * right[0, index] * value)


def test_a_mode_that_the_penalty_hardly_moves_has_no_critical_weight() -> None:
    """Its law would be followed to ten thousand times the weight."""
    value = 0.1 + 1j
    assert Mode(value=value, slope=-1e-4, share_G=0.5).critical(0.1) is None
    assert Mode(value=value, slope=-1.0, share_G=0.5).critical(0.1) == pytest.approx(1.204988)


def test_the_transposed_flow_is_the_flows_transpose() -> None:
    rng = np.random.default_rng(0)
    scales = [torch.from_numpy(rng.uniform(0.1, 10, num)) for num in (2, 3)]
    G, D = (replace(plain(0.1, 0.5), scale=scale) for scale in scales)
    matrix = torch.from_numpy(rng.standard_normal((5, 5)))
    jacobian = DenseJacobian(matrix, {"G": 2, "D": 3})
    played = RoundOperator(jacobian=jacobian, optimizers={"G": G, "D": D}, steps_D=3)
    forward, back = matrix_of(played.preconditioned, 5), matrix_of(played.preconditioned_back, 5)
    assert back == pytest.approx(forward.T, rel=1e-12)


def test_a_weight_that_the_jacobian_is_not_linear_in() -> None:
    """D unrolled by two steps of a along its loss with R1: the weight is in G's rows, squared."""
    gamma, a, c = 0.3, 0.4, 0.5

    def at(weight: float) -> RoundOperator:
        game = Game("minimax", (Term(name="r1", weight=weight),), joint=True)
        zeros = torch.zeros(6, 1, 1, 1, dtype=torch.float64)
        batch = Batch(real_img=zeros, label=None, z=zeros.view(6, 1), key=0)
        loss = loss_on(game, batch, unrolled_steps=2, unrolled_move=lambda: descent(a))
        jacobian = VectorField(loss, Point(), Slope()).at()
        return RoundOperator(jacobian=jacobian, optimizers={"G": ONE, "D": ONE})

    # J = [[-s, -c r^2], [c, -gamma]], r = 1 - a gamma, s = 2 c^2 a (1 + r).
    r, s_slope = 1 - a * gamma, -2 * c**2 * a**2
    s = 2 * c**2 * a * (1 + r)
    (mode,) = damping(at, gamma).modes
    half, rest = (gamma + s) / 2, s * gamma + c**2 * r**2
    assert mode.value == pytest.approx(-half + 1j * (rest - half**2) ** 0.5, rel=1e-9)
    moved = (1 + s_slope) * mode.value + s_slope * gamma + s - 2 * a * c**2 * r
    assert mode.slope == pytest.approx(-moved / (2 * mode.value + gamma + s), rel=1e-6)


def test_a_weight_without_a_derivative_has_no_law() -> None:
    with pytest.raises(StabilityError, match="no derivative by this weight"):
        damping(lambda gamma: dirac_at(0.3 + max(gamma - 0.3, 0.0) ** 0.5), 0.3)


def test_rates_of_0_have_no_law(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StabilityError, match="the rate of D is 0 here: D stands still"):
        damping(lambda gamma: dirac_at(gamma, D=plain(0.0)), 0.3)
    run = str(make_run(schedules=tuple(map(Schedule.parse, STOPPED)), regularizers=R1))
    assert main(["gamma", run]) == StabilityError.exit_code
    assert "the rates are 0 here: nothing moves" in capsys.readouterr().err


def test_a_runs_rates_are_in_its_law(make_run: MakeRun) -> None:
    """The same checkpoint with D's rate times 64: the flow is another one."""
    slow = make_run(regularizers=R1)
    game = RunGame.open(slow)
    fast = replace(
        game,
        config=replace(
            game.config, optim_D=replace(game.config.optim_D, lr=64 * game.config.optim_D.lr)
        ),
        state=copy.copy(game.state),
    )
    fast.state.D = copy.copy(game.state.D)
    fast.state.D.optim = fast.config.optim_D
    values = []
    for each in (game, fast):
        (batch,) = each.batches(1)
        values.append(damping(rounds_at(each, batch, "r1"), 0.3, num=2).modes[0])
    ratio = abs(values[1].value / values[0].value)
    assert 2 < ratio < 65


def test_a_run_without_the_penalty_is_told_what_it_would_do(
    tiny_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gamma", str(tiny_run), "--json", "--penalty", "r2", "r1", "--num", "3"]) == 0
    found = json.loads(capsys.readouterr().out)["penalties"]
    assert {name: each["weight"] for name, each in found.items()} == {"r1": 0.3, "r2": 0.0}
    assert all(each["modes"] for each in found.values())
    assert main(["gamma", str(tiny_run), "--num", "3"]) == 0
    assert "d lambda / d weight" in capsys.readouterr().out
    assert main(["gamma", str(tiny_run), "--penalty", "r3"]) == 2


@pytest.mark.parametrize(
    ("advice", "found"),
    [
        (1.2345, {"r1": 1.23, "r2": 1.23}),
        (0.12345, {"r2": 0.123}),  # r1 has more: nothing to raise
        (None, {}),
        (5e6, {}),
    ],
)
def test_a_rescue_is_given_what_is_advised(
    tiny_run: Path,
    monkeypatch: pytest.MonkeyPatch,
    advice: float | None,
    found: dict[str, float],
) -> None:
    asked: list[float] = []

    def advised(at: At, weight: float, *, num: int) -> Damping:
        asked.append(weight)
        at(weight)  # a game that can be linearised
        return Damping(weight=weight, modes=(), advice=advice, solved=())

    monkeypatch.setattr("training.stability.critical_weights.damping", advised)
    told = critical_weights(RunGame.open(tiny_run), ["r1", "r2"])
    assert told == found
    assert asked == [0.3, 0.0]


@pytest.mark.parametrize("command", ["spectrum", "gamma", "path", "exponent"])
def test_no_command_begins_without_the_memory_it_needs(
    command: str,
    tiny_run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("training.stability.memory.available_bytes", lambda: 1000)
    assert main([command, str(tiny_run)]) == StabilityError.exit_code
    assert "MiB of memory" in capsys.readouterr().err


def test_two_weights_need_more_memory_than_one() -> None:
    G, D, z = Point(), Slope(), torch.zeros(8, 1, dtype=torch.float64)
    one, two, wide = (
        needed_bytes(G, D, z, None, Held(linearizations=num, vectors=vectors))
        for num, vectors in ((1, 0), (2, 0), (1, 50))
    )
    # 24 tensors of both players' 16 outputs; 50 vectors of 2 weights.
    assert two - one == 8 * 24 * 16
    assert wide - one == 8 * 50 * 2


def test_a_rescue_measures_nothing_that_memory_has_no_room_for(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.stability.memory.available_bytes", lambda: 1000)
    with pytest.raises(StabilityError, match="MiB of memory"):
        critical_weights(RunGame.open(tiny_run), ["r1"])


def test_a_rescue_measures_on_the_cpu_whatever_the_trainings_device(tiny_run: Path) -> None:
    opened = RunGame.open(tiny_run)
    images = replace(opened.image_set, place=torch.device("meta"))
    game = RunGame.standing(tiny_run, opened.config, images, read(opened.checkpoint))
    (batch,) = game.batches(1, 8)
    parameters = game.state.parameters()
    assert {each.device.type for each in (batch.real_img, batch.z, *parameters)} == {"cpu"}
    assert all(
        torch.equal(*pair) for pair in zip(parameters, opened.state.parameters(), strict=True)
    )
    assert isinstance(critical_weights(game, ("r1",)), dict)
