"""Each sign on histories made by hand: where it shows, where not, for how long, since when."""

import math
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from training.stability.remedies import REMEDIES
from training.stability.signs import SIGNS, Alarm, Past, Vitals, vanishing
from training.stability.streaks import Streaks

TICK = 10_000
TOTAL = 200_000


def tick(number: int, **given: float) -> Vitals:
    """A healthy training's figures."""
    healthy: dict[str, Any] = {
        "cur_nimg": TICK * number,
        "gradient_G": 1.0,
        "gradient_D": 2.0,
        "weights_G": 15.0 + number / 100,
        "weights_D": 9.0 + number / 100,
        "margin": 1.0,
        "logits": 0.7,
        "sure": 0.02,
        "r_t": 0.6,
        "slope": 0.5,
        "spread": 0.9,
        "twins": 0.05,
        "copied": 0.01,
        "swing": 0.3,
    }
    return {**healthy, **given}


def found(history: list[Vitals], **given: Any) -> list[Alarm]:
    return Streaks(total_nimg=TOTAL, **given).follow(history).alarms()


def pending(history: list[Vitals]) -> int | None:
    return Streaks(total_nimg=TOTAL).follow(history).pending_since()


SICK: dict[str, dict[str, float]] = {
    "divergence": {"gradient_D": 1001.0},
    "vanishing": {"slope": 0.009},
    "saturation": {"sure": 0.96},
    "collapse": {"spread": 0.09},
    "oscillation": {"swing": 0.61},
    "overfitting": {"r_t": 0.98},
    "memorisation": {"copied": 0.51},
}


def test_every_sign_is_tried_and_has_remedies_that_exist() -> None:
    assert set(SICK) == set(SIGNS)
    for sign in SIGNS.values():
        assert set(sign.remedies) <= set(REMEDIES)


@pytest.mark.parametrize("failure", SIGNS)
def test_a_sign_is_an_alarm_once_it_stood_for_its_window(failure: str) -> None:
    window = SIGNS[failure].window
    healthy = [tick(number) for number in range(1, 11)]
    assert found(healthy) == []
    assert pending(healthy) is None
    sick = [tick(10 + number, **SICK[failure]) for number in range(1, window + 2)]
    for num in range(1, window):
        assert found(healthy + sick[:num]) == []
        assert pending(healthy + sick[:num]) == 11 * TICK
    (alarm,) = found(healthy + sick[:window])
    assert (alarm.failure, alarm.since_nimg) == (failure, 11 * TICK)
    assert alarm.cur_nimg == (10 + window) * TICK
    assert alarm.is_new
    assert failure in str(alarm)
    (again,) = found(healthy + sick)
    assert not again.is_new
    assert again.since_nimg == 11 * TICK
    assert found(healthy + sick, ignore=(failure,)) == []
    # One good tick between, and it is forgotten.
    assert found([*healthy, *sick[: window - 1], tick(30), sick[0]][: 10 + window]) == []


@pytest.mark.parametrize(
    ("failure", "figures"),
    [
        ("vanishing", {"gradient_G": 0.0099}),
        ("collapse", {"twins": 0.91}),
        ("divergence", {"gradient_G": 1001.0}),
        ("divergence", {"weights_D": 1001.0}),
        ("divergence", {"logits": 1001.0}),
        ("collapse", {"spread": float("nan")}),
    ],
)
def test_other_ways_to_show(failure: str, figures: dict[str, float]) -> None:
    history = [tick(number) for number in range(1, 11)]
    history += [tick(11 + number, **figures) for number in range(SIGNS[failure].window)]
    assert failure in {alarm.failure for alarm in found(history)}


def test_weights_that_stand_still_are_a_vanished_gradient() -> None:
    history = [tick(number, weights_G=15.0) for number in range(10, 13)]
    assert [(alarm.failure, alarm.value) for alarm in found(history)] == [("vanishing", 0.0)]


def test_growth_is_measured_against_the_trainings_own_past() -> None:
    """A critic whose gradients are always of the order of 900 is no divergence at 60,000."""
    large = [tick(number, gradient_D=900.0) for number in range(1, 6)]
    assert found([*large, tick(6, gradient_D=60_000.0)]) == []
    (alarm,) = found([*large, tick(6, gradient_D=91_000.0)])
    assert (alarm.failure, alarm.player) == ("divergence", "D")
    assert alarm.value == pytest.approx(91_000 / 900)
    (alarm,) = found([tick(1, gradient_G=2e3)])
    assert alarm.player == "G"


@pytest.mark.parametrize("failure", ["saturation", "collapse", "oscillation", "overfitting"])
def test_a_beginning_means_nothing(failure: str) -> None:
    """Neither the first share of a training nor its first images."""
    sick = [tick(n, **{**SICK[failure], "cur_nimg": 100.0 * n}) for n in range(1, 50)]
    assert [alarm.failure for alarm in found(sick)] == []
    assert [alarm.failure for alarm in Streaks(total_nimg=4900).follow(sick).alarms()] == []


def test_a_figure_that_does_not_exist_is_no_sign() -> None:
    history = [tick(number) for number in range(1, 12)]
    for vitals in history:
        for name in ("sure", "r_t", "copied", "swing"):
            del vitals[name]
    assert found(history) == []


@pytest.mark.parametrize("failure", SIGNS)
def test_followed_tick_by_tick_it_says_what_a_look_at_the_whole_says(failure: str) -> None:
    rng = random.Random(0)
    history: list[Vitals] = []
    streaks = Streaks(total_nimg=TOTAL)
    for number in range(1, 60):
        sick = SICK[failure] if rng.random() < 0.8 else {}
        history.append(tick(number, **{"gradient_G": rng.uniform(0.5, 2), **sick}))
        assert streaks.follow(history).alarms() == found(history)
        assert streaks.pending_since() == pending(history)
        if number == 40:  # a rescue puts the history back
            history[:] = [dict(vitals) for vitals in history[:20]]
    assert streaks.follow(history).alarms() == found(history)


def test_a_tick_is_looked_at_once_however_long_a_sign_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A sign that stands for thousands of ticks under warn must not slow each of them down."""
    looked = 0

    def counted(now: Vitals, past: Past) -> float | None:
        nonlocal looked
        looked += 1
        return vanishing(now, past)

    monkeypatch.setitem(SIGNS, "vanishing", replace(SIGNS["vanishing"], figure=counted))
    streaks, history = Streaks(total_nimg=TOTAL), []
    for number in range(1, 301):
        history.append(tick(number, slope=1e-5))
        (alarm,) = streaks.follow(history).alarms() or (None,)
    assert alarm is not None
    assert alarm.since_nimg == 2 * TICK
    assert looked == 300


def test_a_figure_that_was_not_finite_does_not_spoil_the_past() -> None:
    history = [tick(number) for number in range(1, 11)]
    history[4]["gradient_G"] = math.nan
    assert found(history) == []
    (alarm,) = found([*history, tick(11, gradient_G=1001.0)])
    assert (alarm.failure, alarm.value) == ("divergence", pytest.approx(100.1))


def test_the_page_has_every_threshold() -> None:
    page = (Path(__file__).parents[2] / "docs" / "watchdog.md").read_text()
    for failure, sign in SIGNS.items():
        (row,) = re.findall(rf"^\| `{failure}` \|[^|]*\|([^|]*)\|([^|]*)\|([^|]*)\|$", page, re.M)
        threshold, window, warm_up = (cell.strip() for cell in row)
        assert threshold == f"{sign.alarming} {sign.threshold:g}"
        assert int(window) == sign.window
        assert float(warm_up) == sign.warm_up
