from dataclasses import replace

import pytest
import torch

from models.networks import ImageShape
from training.config import TrainingConfig
from training.guard import Trip
from training.recipes import RECIPES
from training.stability.remedies import choose
from training.stability.signs import Alarm
from training.stability.watchdog import Rescue, alarm_of, remedy_for
from training.state import State


def config(recipe: str) -> TrainingConfig:
    return RECIPES[recipe].config


def alarm(failure: str, **given: str) -> Alarm:
    return Alarm(failure=failure, value=1.0, since_nimg=1, cur_nimg=2, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("recipe", "failure", "tried", "change"),
    [
        ("digits", "collapse", set(), "--regularizers r1=0.3 r2=0.3 -> r1=3 r2=3"),
        ("article", "vanishing", set(), "--regularizers none -> r1=1"),
        ("article", "vanishing", {"raise-gamma"}, "--optim-D.lr 0.0002 -> 2e-05"),
        ("article", "vanishing", {"raise-gamma", "lower-lr-of-D"}, "--optim-D.lr 0.0002 -> 2e-05"),
        ("wgan-gp", "saturation", set(), "--regularizers wgan-gp=10 -> wgan-gp=100"),
        (
            "digits",
            "overfitting",
            set(),
            "--augment.policy none -> ada; --augment.target 0 -> 0.6; "
            "--augment.speed-kimg 500 -> 7",
        ),
        # ADA stands beside a gradient penalty, and least squares has no r_t to adapt to.
        ("article", "overfitting", set(), "--regularizers none -> r1=1"),
        ("lsgan", "memorisation", set(), "--regularizers none -> r1=1"),
    ],
)
def test_each_failure_has_one_change_at_a_time(
    recipe: str, failure: str, tried: set[str], change: str
) -> None:
    remedy = choose(config(recipe), alarm(failure), tried)
    assert remedy is not None
    assert remedy.change == change


@pytest.mark.parametrize(
    ("terms", "grown", "player"),
    [
        (("loss_D.adversarial", "gradient_D"), "D", "D"),
        (("loss_D.adversarial", "gradient_D"), "G", "G"),  # D was asked first, about G's images
        (("loss_D.adversarial", "gradient_D"), "", "D"),
        (("loss_G.adversarial", "gradient_G"), "", "G"),
    ],
)
def test_who_is_slowed_down_for_what_is_not_finite(
    terms: tuple[str, ...], grown: str, player: str
) -> None:
    game = config("digits")
    state = State.fresh(
        game, ImageShape(resolution=32, channels=1, num_classes=10), torch.device("cpu")
    )
    if grown:
        with torch.no_grad():
            state.seat(grown).parameters[0].fill_(1e6)
    trip = alarm_of(Trip(terms=terms, cur_nimg=7), state)
    assert (trip.player, trip.since_nimg) == (player, 8)
    remedy = choose(game, trip, ())
    assert remedy is not None
    assert remedy.change == f"--optim-{player}.lr 0.001 -> 0.0001"
    both = choose(game, trip, {"lower-lr"})
    assert both is not None
    assert both.change == "--optim-G.lr 0.001 -> 0.0001; --optim-D.lr 0.001 -> 0.0001"


def test_rescues_of_other_failures_count_for_the_bound_but_not_for_the_order() -> None:
    done = Rescue(
        failure="vanishing", cur_nimg=2, before="", to_nimg=0, remedy="raise-gamma", change=""
    )
    game = config("digits")
    remedy = remedy_for(alarm("collapse"), game, (done,))
    assert remedy is not None
    assert remedy.name == "raise-gamma"
    assert remedy_for(alarm("collapse"), game, (done, done, done)) is None
    none = replace(game, watchdog=replace(game.watchdog, max_rescues=0))
    assert remedy_for(alarm("collapse"), none, ()) is None
