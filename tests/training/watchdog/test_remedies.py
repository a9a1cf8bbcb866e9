from dataclasses import replace

import pytest
import torch

from models.networks import ImageShape
from training.config.training import TrainingConfig
from training.engine.state import State
from training.errors import NonFinite
from training.game.penalties import PENALTIES
from training.game.regularizers import Term
from training.optim.schedules import Schedule, Timetable
from training.recipes import RECIPES
from training.watchdog.detectors import Alarm
from training.watchdog.diagnostics import weight_norms
from training.watchdog.remedies import REMEDIES, choose
from training.watchdog.watchdog import Rescue, alarm_of, remedy_for


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


@pytest.mark.parametrize("name", [name for name in PENALTIES if PENALTIES[name].gradients])
def test_every_gradient_penalty_of_the_registry_is_raised(name: str) -> None:
    game = replace(config("article"), regularizers=(Term(name=name, weight=2.0),))
    remedy = choose(game, alarm("collapse"), ())
    assert remedy is not None
    assert remedy.config.regularizers == (Term(name=name, weight=20.0),)


def test_another_penalty_is_none_that_damps() -> None:
    drift = Term(name="drift", weight=0.001)
    remedy = choose(replace(config("article"), regularizers=(drift,)), alarm("collapse"), ())
    assert remedy is not None
    assert remedy.config.regularizers == (drift, Term(name="r1", weight=1.0))


def test_a_remedy_names_whatever_option_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    def smaller(game: TrainingConfig, _alarm: Alarm, _cur_nimg: int) -> TrainingConfig:
        optim = replace(game.optim_D, betas=(0.5, 0.9))
        return replace(game, batch_size=16, optim_D=optim, data=replace(game.data, channels=3))

    monkeypatch.setitem(REMEDIES, "raise-gamma", smaller)
    remedy = choose(config("digits"), alarm("collapse"), ())
    assert remedy is not None
    assert remedy.change == (
        "--data.channels 1 -> 3; --optim-D.betas 0 0.99 -> 0.5 0.9; --batch-size 32 -> 16"
    )


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
    state.untrained = weight_norms(state)
    if grown:
        with torch.no_grad():
            state.player(grown).parameters[0].fill_(1e6)
    non_finite = alarm_of(NonFinite(terms=terms, cur_nimg=7), state)
    assert (non_finite.player, non_finite.since_nimg) == (player, 8)
    remedy = choose(game, non_finite, ())
    assert remedy is not None
    assert remedy.change == f"--optim-{player}.lr 0.001 -> 0.0001"
    both = choose(game, non_finite, {"lower-lr"})
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


def test_measured_weights_are_taken_where_they_are_higher() -> None:
    asked: list[str] = []

    def measure() -> dict[str, float]:
        asked.append("")
        return {"r1": 1.7, "r2": 0.1}

    found = choose(config("digits"), alarm("collapse"), set(), measure)
    assert found is not None
    # That of r2 is below its weight: more damping was wanted, so it is raised tenfold.
    assert found.change == "--regularizers r1=0.3 r2=0.3 -> r1=1.7 r2=3"
    added = choose(config("article"), alarm("vanishing"), set(), measure)
    assert added is not None
    assert added.change == "--regularizers none -> r1=1.7"
    asked.clear()
    slower = choose(config("article"), alarm("vanishing"), {"raise-gamma"}, measure)
    assert slower is not None
    assert slower.change == "--optim-D.lr 0.0002 -> 2e-05"
    assert not asked  # it costs seconds


def scheduled(*schedules: str, r1: float = 0.1) -> TrainingConfig:
    """The article's game, with R1 and these schedules."""
    given = tuple(map(Schedule.parse, schedules))
    terms = (Term(name="r1", weight=r1),)
    return replace(config("article"), regularizers=terms, schedules=given)


def weight_of(game: TrainingConfig, cur_nimg: int) -> float:
    (term,) = game.regularizers
    return Timetable(game.schedules).at(term.name, term.weight, cur_nimg)


@pytest.mark.parametrize(
    ("schedule", "start", "measured", "weights", "change"),
    [
        # Past its end, in its middle and before its start: what counts is the weight there.
        ("r1=0.05@1", 0.1, {}, (0.5, 0.5), "so at 4 kimg r1 0.05 -> 0.5"),
        ("r1=0.05@1", 0.1, {"r1": 1.5}, (1.5, 1.5), "so at 4 kimg r1 0.05 -> 1.5"),
        ("r1=0.3@8", 0.1, {}, (2.0, 3.0), "so at 4 kimg r1 0.2 -> 2"),
        ("r1=0.3@8:cosine", 0.1, {"r1": 0.6}, (0.6, 0.9), "so at 4 kimg r1 0.2 -> 0.6"),
        # Measured less than there is, though more than at the start.
        ("r1=0.3@8", 0.1, {"r1": 0.15}, (2.0, 3.0), "so at 4 kimg r1 0.2 -> 2"),
        # A weight that has gone to 0 has none to scale, and is held.
        ("r1=0@2", 0.1, {}, (1.0, 1.0), "--schedules r1=0@2 -> none; so at 4 kimg r1 0 -> 1"),
        ("r1=0@2", 0.1, {"r1": 1.7}, (1.7, 1.7), "so at 4 kimg r1 0 -> 1.7"),
    ],
)
def test_a_weight_with_a_schedule_is_raised_where_the_training_goes_on(
    schedule: str,
    start: float,
    measured: dict[str, float],
    weights: tuple[float, float],
    change: str,
) -> None:
    game = scheduled(schedule, r1=start)
    found = choose(game, alarm("collapse"), (), lambda: measured, cur_nimg=4000)
    assert found is not None
    assert found.name == "raise-gamma"
    assert [weight_of(found.config, n) for n in (4000, 10_000)] == pytest.approx(weights)
    assert found.change.endswith(change)


def test_a_weight_that_is_still_to_rise_isnt_held_below_its_end() -> None:
    found = choose(scheduled("r1=5@10", r1=0), alarm("collapse"), (), cur_nimg=0)
    assert found is not None
    assert [weight_of(found.config, n) for n in (0, 20_000)] == [5.0, 5.0]


@pytest.mark.parametrize("kimg", [1, 8])
def test_a_rate_with_a_schedule_is_lowered_where_the_training_goes_on(kimg: int) -> None:
    game = scheduled(f"optim_G.lr=1e-3@{kimg}", "optim_D.beta1=0.1@5")
    found = choose(game, alarm("collapse"), {"raise-gamma"}, cur_nimg=4000)
    assert found is not None
    assert found.name == "lower-lr-of-both"
    for at in (4000, 9000):
        was, now = (
            Timetable(each.schedules).at("optim_G.lr", each.optim_G.lr, at)
            for each in (game, found.config)
        )
        assert now == pytest.approx(was / 10)
    assert "optim_G.lr" in found.change.rpartition("so at 4 kimg ")[2]
    assert game.schedules[1] in found.config.schedules


def test_a_remedy_that_does_nothing_from_there_on_makes_way_for_the_next() -> None:
    # D's rate has gone to 0: a tenth of it is the same. So the player isn't the one to slow down.
    game = scheduled("optim_D.lr=0@2")
    who = alarm("divergence", player="D")
    early = choose(game, who, (), cur_nimg=1000)
    assert early is not None
    assert early.name == "lower-lr"
    late = choose(game, who, (), cur_nimg=4000)
    assert late is not None
    assert late.name == "lower-lr-of-both"
    none = choose(scheduled("optim_D.lr=0@2", "optim_G.lr=0@2"), who, (), cur_nimg=4000)
    assert none is not None
    assert none.name == "raise-gamma"
