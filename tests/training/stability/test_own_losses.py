"""The instrument looks at the very losses that train, with all that a run remembers."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.models.networks.tiny import TINY
from tests.training.stability.conftest import MakeRun, tiny_config
from training.data import Batches
from training.engine.state import State
from training.game.regularizers import Term
from training.game.updates import MicroBatch, RoundBatch
from training.stability.run_game import RunGame
from training.stability.twins import exponent, twin_of

ADA = replace(tiny_config().augment, policy=("brightness",), target=0.6)
GAMES: dict[str, dict[str, Any]] = {
    "plain": {"regularizers": (Term.parse("r1=0.3"),)},
    "packed": {"packing": 2, "regularizers": (Term.parse("r1=0.3"), Term.parse("zero-gp=0.1"))},
    "unrolled": {"unrolled_steps": 2, "unrolled_lr": 0.05},
    "unrolled by Adam": {"unrolled_steps": 2, "unrolled_lr": 0.01, "unrolled_adam": True},
    "path length": {
        "network": TINY["style"],
        "batch_size": 8,
        "regularizers": (Term.parse("path-length=2"),),
    },
}


@pytest.mark.parametrize("name", GAMES)
def test_the_field_is_what_training_descends(make_run: MakeRun, name: str) -> None:
    game = RunGame.open(make_run(num_rounds=6, **GAMES[name]))
    (batch,) = game.batches(1)
    source = Batches(game.image_set, batch_size=game.config.batch_size, seed=0)
    trained = twin_of(game.config, game.state, source)
    value = game.field(batch).at().value
    for player in "GD":
        gradients = trained.gradients(player, RoundBatch([MicroBatch(batch)]))
        named = zip(trained.state.player(player).parameters, gradients, strict=True)
        flat = torch.cat([
            torch.zeros_like(parameter).flatten() if each is None else each.flatten()
            for parameter, each in named
        ])  # fmt: skip
        part = game.field(batch).part(player, value)
        assert flat.norm() > 0
        assert torch.allclose(part, -flat, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("options", [GAMES["path length"], {"augment": ADA}], ids=["pl", "ada"])
def test_what_a_run_remembers_comes_with_its_twins(
    make_run: MakeRun, options: dict[str, Any]
) -> None:
    """Running means of float32 could not take in the twins' float64."""
    game = RunGame.open(make_run(num_rounds=6, **options))
    source = Batches(game.image_set, batch_size=game.config.batch_size, seed=0)
    twins = [twin_of(game.config, game.state, source) for _ in range(2)]
    names = ("path_length", "augment_p", "augment_signs")
    before = {name: getattr(game.state, name).clone() for name in names}
    assert any(bool(value.any()) for value in before.values())
    for name in names:
        assert torch.equal(getattr(twins[0].state, name), before[name].double())
    found = exponent(*twins, num_rounds=4, block=2)
    assert len(found.blocks) == 1
    for name in names:
        assert torch.equal(getattr(game.state, name), before[name])  # the run's own stays
    moved: list[State] = [each.state for each in twins]
    assert any(not torch.equal(getattr(moved[0], n), before[n].double()) for n in names)
