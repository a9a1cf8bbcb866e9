"""A run on disk that costs nothing: perceptrons of 335 weights on digits of 8 x 8 pixels."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from models.networks import MLP
from training.cli.command import Command
from training.config.training import TrainingConfig
from training.data import Batches, DataConfig, load
from training.engine.checkpoint import Checkpoints
from training.engine.state import State
from training.engine.stepper import Stepper
from training.recipes import RECIPES

NUM_ROUNDS = 30

MakeRun = Callable[..., Path]


def tiny_config(**options: Any) -> TrainingConfig:
    plain = replace(
        RECIPES["article"].config,
        data=DataConfig(resolution=8, conditional=False),
        network=MLP(z_dim=4, hidden=2, dropout=0.0),
        batch_size=32,
    )
    return replace(plain, **options)


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """Trains some rounds and leaves what `training.run` would leave of them."""

    def make(num_rounds: int = NUM_ROUNDS, **options: Any) -> Path:
        config = tiny_config(**options)
        image_set = load(config.data)
        state = State.fresh(config, image_set.shape, torch.device("cpu"))
        source = Batches(image_set, batch_size=config.batch_size, seed=config.seed)
        stepper = Stepper(config, state, source)
        for _ in range(num_rounds):
            stepper.step()
        folder = tmp_path_factory.mktemp("run")
        (folder / "config.json").write_text(Command(config=config).to_json())
        Checkpoints(folder / "checkpoints").save(state, config, image_set.fingerprint)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_run(make_run: MakeRun) -> Path:
    """A run of the article's game with R1 at every fourth step."""
    from training.game.regularizers import Term

    return make_run(regularizers=(Term.parse("r1=0.3/4"),))
