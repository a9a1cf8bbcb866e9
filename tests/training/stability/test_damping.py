"""Gamma's advice against the closed form, and on a run."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from training.engine.checkpoint import read
from training.errors import StabilityError
from training.stability.__main__ import main
from training.stability.closed_form.toy_games import dirac
from training.stability.critical_weights import critical_weights
from training.stability.damping import At, Damping, damping
from training.stability.field import Linearization
from training.stability.run_game import RunGame


def dirac_at(gamma: float) -> Linearization:
    return dirac(f"r1={gamma}").field().at()


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
