import dataclasses
import json
import math
from typing import Any

import pytest

from models.networks import DCGAN, MLP, ImageShape
from training.config.training import TrainingConfig, flatten, from_builtins, to_builtins
from training.data import DataConfig
from training.errors import ConfigError
from training.game.regularizers import Term
from training.optim.optimizers import OptimizerConfig


def make(**options: Any) -> TrainingConfig:
    required = {"recipe": "digits", "data": DataConfig(), "network": DCGAN()}
    return TrainingConfig(**{**required, "total_kimg": 1.0, "tick_kimg": 1.0, **options})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("objective", "wishful"),
        ("init_D", "wishful"),
        ("batch_size", 1),
        ("total_kimg", 0.0),
        ("total_kimg", math.inf),
        ("tick_kimg", -1.0),
        ("ema_kimg", -0.5),
        ("ema_rampup", math.nan),
        ("seed", -1),
    ],
)
def test_options_that_make_no_training_are_refused_by_name(option: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"{option} is .*{value}.*allowed: .+;.+"):
        make(**{option: value})


@pytest.mark.parametrize("player", ["optim_G", "optim_D"])
@pytest.mark.parametrize("option", [{"lr": 0.0}, {"betas": (0.5, 1.0)}, {"eps": 0.0}])
def test_adam_refuses_what_it_cannot_step_with(option: dict[str, Any], player: str) -> None:
    with pytest.raises(ConfigError, match=rf"{player}\.{next(iter(option))} is"):
        make(**{player: OptimizerConfig(**option)})


def test_a_regularizer_counts_once() -> None:
    twice = (Term(name="r1", weight=1.0), Term(name="r1", weight=2.0))
    with pytest.raises(ConfigError, match="each name once"):
        make(regularizers=twice)


@pytest.mark.parametrize("text", ["r1=0.5", "r2=1e-05/16", "r1=0"])
def test_a_term_reads_what_it_writes(text: str) -> None:
    assert str(Term.parse(text)) == text


def test_an_interval_is_every_step_unless_given() -> None:
    assert Term.parse("r1=0.5") == Term(name="r1", weight=0.5, interval=1)
    assert Term.parse("r1=0.5/16").interval == 16


@pytest.mark.parametrize("text", ["r1", "r1=x", "r1=1/2.5", "r3=1", "r1=-1", "r1=nan", "r1=1/0"])
def test_a_term_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="regularizers"):
        Term.parse(text)


def test_lengths_are_whole_batches() -> None:
    config = make(total_kimg=1.0, tick_kimg=0.01, batch_size=64)
    assert config.total_nimg == 1024
    assert config.tick_nimg == 64
    assert make(total_kimg=0.128, batch_size=64).total_nimg == 128


def test_json_and_back() -> None:
    config = make(
        network=MLP(hidden=7),
        data=DataConfig(conditional=False),
        regularizers=(Term(name="r1", weight=0.5, interval=4),),
        optim_D=OptimizerConfig(lr=1e-3, betas=(0.0, 0.9)),
    )
    values = json.loads(json.dumps(to_builtins(config)))
    assert values["network"] == {"family": "mlp", "z_dim": 100, "hidden": 7, "dropout": 0.3}
    assert from_builtins(values, "here") == config


def test_a_configuration_of_another_release_is_refused() -> None:
    values = to_builtins(make())
    with pytest.raises(ConfigError, match=r"here: frobnicate is not known"):
        from_builtins({**values, "frobnicate": 1}, "here")
    with pytest.raises(ConfigError, match="here"):
        from_builtins({**values, "network": {"family": "unheard-of"}}, "here")
    del values["total_kimg"]
    with pytest.raises(ConfigError, match="total_kimg"):
        from_builtins(values, "here")


def test_a_shape_that_the_network_cannot_make_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="resolution is 28"):
        make().check_shape(ImageShape(resolution=28, channels=1))


def test_flat_names_are_those_of_the_command_line() -> None:
    flat = flatten(to_builtins(make()))
    assert flat["network.ngf"] == 64
    assert flat["optim_D.lr"] == 2e-4
    assert flat["seed"] == 0


def test_a_configuration_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().seed = 3  # type: ignore[misc]
