from typing import Any, cast

import pytest

from training.engine.state import State
from training.errors import ConfigError, EvaluationError
from training.evaluation.looks import Looker
from training.runs import quality
from training.runs.keeping import Keeping
from training.runs.quality import MOST_SHARE, Looks, best_look, much_better, stale_since


def looks_of(*values: float) -> list[dict[str, float]]:
    return [
        {"cur_nimg": 1000.0 * number, "frechet_distance": value, "coverage": number / 100}
        for number, value in enumerate(values, 1)
    ]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class StillState:
    """What looks read of a state."""

    def __init__(self) -> None:
        self.cur_nimg = 0
        self.looks: list[dict[str, float]] = []


class SlowLooker:
    """Takes seconds of the clock for each look."""

    figures = ("frechet_distance",)

    def __init__(self, clock: Clock, look_s: float) -> None:
        self.clock, self.look_s = clock, look_s
        self.floor = {"frechet_distance": 0.1}
        self.ceiling = {"frechet_distance": 9.0}

    def prepare(self, _sampler: Any) -> float:
        self.clock.now += 3 * self.look_s
        return self.look_s

    def look(self, _sampler: Any) -> dict[str, float]:
        self.clock.now += self.look_s
        return {"frechet_distance": 1.0}


def played(
    monkeypatch: pytest.MonkeyPatch, look_s: float, **given: Any
) -> tuple[Looks, StillState, Clock, list[str]]:
    """A training of 100 ticks of 1 kimg and 10 seconds."""
    clock, state, said = Clock(), StillState(), []
    monkeypatch.setattr(quality, "time", clock)
    looks = Looks(
        looker=cast(Looker, SlowLooker(clock, look_s)),
        sampler=cast(Any, lambda state: None),
        total_nimg=100_000,
        evaluate_nimg=given.get("evaluate_nimg"),
        wants_last=given.get("wants_last", False),
        say=said.append,
    )
    for _ in range(100):
        clock.now += 10
        state.cur_nimg += 1000
        looks.at_tick(cast(State, state))
    return looks, state, clock, said


def test_by_default_there_are_twenty_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    looks, state, clock, _ = played(monkeypatch, 0.1)
    assert [look["cur_nimg"] for look in state.looks] == [5000 * n for n in range(1, 21)]
    assert looks.spent_s <= MOST_SHARE * clock.now


def test_slow_looks_are_fewer_and_stay_within_their_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks, state, clock, _ = played(monkeypatch, 3.0)
    assert 3 <= len(state.looks) <= 8
    assert looks.spent_s <= MOST_SHARE * clock.now
    assert state.looks[-1]["cur_nimg"] == 100_000  # what is exported has been looked at


def test_looks_that_were_asked_for_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    _, state, _, _ = played(monkeypatch, 30.0, evaluate_nimg=25_000)
    assert [look["cur_nimg"] for look in state.looks] == [25_000, 50_000, 75_000, 100_000]


def test_a_selection_looks_at_the_end_whatever_that_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    _, state, _, _ = played(monkeypatch, 1000.0, wants_last=True)
    assert [look["cur_nimg"] for look in state.looks] == [100_000]


def test_a_look_that_fails_is_said_once_and_costs_the_training_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SlowLooker, "look", fails)
    _, state, _, said = played(monkeypatch, 0.1)
    assert state.looks == []
    assert said == ["warning: no look at the images: features are not finite"]


def fails(_self: SlowLooker, _sampler: Any) -> dict[str, float]:
    raise EvaluationError("features are not finite")


def test_a_look_has_its_floor_and_ceiling_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    looks, state, clock, _ = played(monkeypatch, 0.1)
    state.cur_nimg, state.looks, clock.now = 5000, [], clock.now + 1000
    assert looks.at_tick(cast(State, state)) == {
        "quality.frechet_distance": 1.0,
        "quality.frechet_distance.floor": 0.1,
        "quality.frechet_distance.ceiling": 9.0,
    }


def test_images_that_stop_becoming_better_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stale_since(looks_of(9, 5, 3, 2, 1.5, 1.2, 1.0, 0.8)) is None
    assert stale_since(looks_of(9, 1, 1.1, 1.2, 1.1)) is None  # not yet for long
    assert stale_since(looks_of(9, 1, 1.1, 0.99, 1.1, 1.2, 1.3, 1.2)) == 2000
    # Said once, not at every look.
    _, _, _, said = played(monkeypatch, 0.1)
    assert len(said) == 1
    assert "haven't become better since 5.0 kimg" in said[0]
    assert "--select best" in said[0]


def test_a_much_better_look_than_the_last_is_told() -> None:
    line = much_better(looks_of(9, 1, 5), {"frechet_distance": 0.1})
    assert "much better at 2.0 kimg (Frechet distance 1) than they are at the end (5)" in str(line)
    assert much_better(looks_of(9, 5, 1), {}) is None
    assert much_better(looks_of(9, 1, 1.05), {"frechet_distance": 0.1}) is None
    assert much_better([], {}) is None


def test_the_best_look_goes_by_the_figures_direction() -> None:
    looks = looks_of(9, 1, 5)
    assert best_look(looks) is looks[1]
    assert best_look(looks, "coverage") is looks[2]
    assert best_look(looks, "recall") is None
    assert best_look(looks, among=[1000, 3000]) is looks[2]
    assert best_look(looks, among=[]) is None


def test_best_and_evenly_spread_checkpoints_are_kept() -> None:
    numbers = [n * 1000 for n in range(1, 11)]
    looks = looks_of(9, 1, 5, 6)
    assert set(Keeping.parse("best,last", "last").kept(numbers, looks, 10_000)) == {2000}
    assert set(Keeping.parse("best,last", "coverage").kept(numbers, looks, 10_000)) == {4000}
    assert set(Keeping.parse("last,5", "last").kept(numbers, looks, 10_000)) == {
        *(2000, 4000, 6000, 8000, 10_000)
    }
    # What was kept once is kept again when the others are gone.
    left = [2000, 4000, 5000, 6000]
    assert set(Keeping.parse("last,5", "last").kept(left, [], 10_000)) == {2000, 4000, 6000}
    assert not Keeping.parse("last", "last").kept(numbers, looks, 10_000)
    # The best that is there is kept where that of the best look could not be saved.
    assert set(Keeping.parse("best,last", "last").kept(left[2:], looks, 10_000)) == set()
    assert set(Keeping.parse("best,last", "last").kept([1000, 3000], looks, 10_000)) == {3000}


@pytest.mark.parametrize(
    ("keep", "select", "says"),
    [
        ("best", "last", "last is always part of it"),
        ("last,all", "last", "keep is 'last,all', allowed"),
        ("last,2,3", "last", "one whole number"),
        ("last", "best", "the best checkpoint is not kept; add best to --keep"),
        ("best,last", "beauty", "select is 'beauty', allowed: last, best, frechet_distance"),
    ],
)
def test_what_can_not_be_kept_is_refused(keep: str, select: str, says: str) -> None:
    with pytest.raises(ConfigError, match=r"--keep|--select") as error:
        Keeping.parse(keep, select)
    assert says in str(error.value)
