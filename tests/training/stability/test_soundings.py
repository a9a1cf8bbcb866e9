"""Soundings cost a share of the time, leave the training alone, and agree with the commands."""

import itertools
import json
import math
from pathlib import Path

import pytest
import torch

from tests.training.stability.conftest import MakeRun, tiny_config
from training.data import Batches, load
from training.engine.state import State
from training.engine.stepper import Stepper
from training.errors import ConfigError
from training.stability import soundings as soundings_module
from training.stability.__main__ import main
from training.stability.run_game import RunGame
from training.stability.soundings import MOST_SHARE, Soundings

ROUND_NIMG = 32


class Clock:
    """Time that passes by the training's rounds, and by soundings when they are asked."""

    def __init__(self, sounding_s: float) -> None:
        self.now, self.sounding_s = 0.0, sounding_s

    def __call__(self) -> float:
        return self.now


def trained(sounding_s: float | None, num_rounds: int = 60) -> tuple[State, list[dict[str, float]]]:
    """Rounds of a second each with a tick after each, sounded or not."""
    config = tiny_config()
    image_set = load(config.data)
    state = State.fresh(config, image_set.shape, torch.device("cpu"))
    stepper = Stepper(config, state, Batches(image_set, batch_size=ROUND_NIMG, seed=0))
    clock = Clock(sounding_s or 0.0)
    soundings = Soundings(image_set=image_set, every_nimg=3 * ROUND_NIMG, clock=clock)
    sound = soundings._sounded

    def slow(*args):  # type: ignore[no-untyped-def]
        clock.now += clock.sounding_s
        return sound(*args)

    soundings._sounded = slow  # type: ignore[method-assign]
    found = []
    for _ in range(num_rounds):
        stepper.step()
        clock.now += 1
        if sounding_s is not None:
            found.append(soundings.at_tick(config, state))
            assert soundings.spent_s <= MOST_SHARE * clock.now
    return state, found


def test_they_take_their_share_at_most_and_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(soundings_module, "_ROUNDS_OF_ONE", 0.5)
    plain, _ = trained(None)
    state, found = trained(0.3)
    assert all(map(torch.equal, plain.parameters(), state.parameters()))
    taken = [index for index, figures in enumerate(found) if figures]
    assert 2 <= len(taken) <= 6
    assert min(b - a for a, b in itertools.pairwise(taken)) >= 3
    assert "stability.path_cosine" in found[taken[1]]
    assert -1 <= found[taken[1]]["stability.path_cosine"] <= 1


def test_the_first_waits_until_its_guess_is_affordable() -> None:
    _, found = trained(0.1, num_rounds=40)
    assert not any(found)


def test_what_fails_is_said_once_and_the_training_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soundings_module, "_ROUNDS_OF_ONE", 0.0)
    config, said = tiny_config(), []
    image_set = load(config.data)
    state = State.fresh(config, image_set.shape, torch.device("cpu"))
    soundings = Soundings(image_set=image_set, every_nimg=1, say=said.append)

    def exhausted(*args: object) -> dict[str, float]:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    monkeypatch.setattr(soundings, "_sounded", exhausted)
    for cur_nimg in (0, 100, 200):
        state.cur_nimg = cur_nimg
        assert soundings.at_tick(config, state) == {}
    assert said == ["warning: its stability is measured no more: CUDA out of memory."]


def test_a_batch_has_whole_packs(make_run: MakeRun) -> None:
    """64 images, that a sounding takes at most, are no packs of 3."""
    game = RunGame.open(make_run(1, batch_size=96, packing=3))
    assert game.size_up_to(64) == 63
    found = Soundings(image_set=game.image_set, every_nimg=1)._sounded(game.config, game.state)
    assert math.isfinite(found["speed_D"])
    with pytest.raises(ConfigError, match=r"batch_size is 64, allowed: a multiple of packing=3"):
        next(game.batches(1, 64))


def test_they_agree_with_the_command(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    game = RunGame.open(tiny_run)
    soundings = Soundings(image_set=game.image_set, every_nimg=1)
    found = soundings._sounded(game.config, game.state)
    assert main(["path", str(tiny_run), "--json", "--points", "12"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert found["speed_G"] == pytest.approx(told["speed_G_last"])
    assert found["speed_average_G"] == pytest.approx(told["speed_G_average"])
    assert math.isfinite(found["speed_D"])
