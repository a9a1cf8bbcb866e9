"""Each detector on histories made by hand: where it fires, where not, for how long, since when."""

import math
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from training.watchdog.alarms import AlarmCounter
from training.watchdog.detectors import DETECTORS, Alarm, Baseline, Diagnostics, vanishing
from training.watchdog.remedies import REMEDIES

TICK = 10_000
TOTAL = 200_000


def tick(number: int, **given: float) -> Diagnostics:
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
        "logit_spread": 0.4,
        "r_t": 0.6,
        "slope": 0.5,
        "spread": 0.9,
        "twins": 0.05,
        "copied": 0.01,
        "swing": 0.3,
    }
    return {**healthy, **given}


def found(history: list[Diagnostics], **given: Any) -> list[Alarm]:
    return AlarmCounter(total_nimg=TOTAL, **given).follow(history).alarms()


def pending(history: list[Diagnostics]) -> int | None:
    return AlarmCounter(total_nimg=TOTAL).follow(history).pending_since()


SICK: dict[str, dict[str, float]] = {
    "divergence": {"gradient_D": 1001.0},
    "vanishing": {"slope": 0.009},
    "saturation": {"sure": 0.96},
    "indifference": {"logit_spread": 1e-6},
    "collapse": {"spread": 0.09},
    "oscillation": {"swing": 0.61},
    "overfitting": {"r_t": 0.98},
    "memorisation": {"copied": 0.51},
}


def test_every_detector_is_tried_and_has_remedies_that_exist() -> None:
    assert set(SICK) == set(DETECTORS)
    for detector in DETECTORS.values():
        assert set(detector.remedies) <= set(REMEDIES)


@pytest.mark.parametrize("failure", DETECTORS)
def test_a_sign_is_an_alarm_once_it_stood_for_its_window(failure: str) -> None:
    window = DETECTORS[failure].window
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
    history += [tick(11 + number, **figures) for number in range(DETECTORS[failure].window)]
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
    assert [alarm.failure for alarm in AlarmCounter(total_nimg=4900).follow(sick).alarms()] == []


def test_a_figure_that_does_not_exist_is_no_alarm() -> None:
    history = [tick(number) for number in range(1, 12)]
    for diagnostics in history:
        for name in ("sure", "r_t", "copied", "swing"):
            del diagnostics[name]
    assert found(history) == []


@pytest.mark.parametrize("failure", DETECTORS)
def test_followed_tick_by_tick_it_says_what_a_look_at_the_whole_says(failure: str) -> None:
    rng = random.Random(0)
    history: list[Diagnostics] = []
    counter = AlarmCounter(total_nimg=TOTAL)
    for number in range(1, 60):
        sick = SICK[failure] if rng.random() < 0.8 else {}
        history.append(tick(number, **{"gradient_G": rng.uniform(0.5, 2), **sick}))
        assert counter.follow(history).alarms() == found(history)
        assert counter.pending_since() == pending(history)
        if number == 40:  # a rescue puts the history back
            history[:] = [dict(diagnostics) for diagnostics in history[:20]]
    assert counter.follow(history).alarms() == found(history)


def test_a_tick_is_looked_at_once_however_long_a_sign_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A detector that fires for thousands of ticks under warn must not slow each of them down."""
    looked = 0

    def counted(now: Diagnostics, baseline: Baseline) -> float | None:
        nonlocal looked
        looked += 1
        return vanishing(now, baseline)

    monkeypatch.setitem(DETECTORS, "vanishing", replace(DETECTORS["vanishing"], figure=counted))
    counter, history = AlarmCounter(total_nimg=TOTAL), []
    for number in range(1, 301):
        history.append(tick(number, slope=1e-5))
        (alarm,) = counter.follow(history).alarms() or (None,)
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
    page = (Path(__file__).parents[3] / "docs" / "watchdog.md").read_text()
    for failure, detector in DETECTORS.items():
        (row,) = re.findall(rf"^\| `{failure}` \|[^|]*\|([^|]*)\|([^|]*)\|([^|]*)\|$", page, re.M)
        threshold, window, warm_up = (cell.strip() for cell in row)
        assert threshold == f"{detector.alarming} {detector.threshold:g}"
        assert int(window) == detector.window
        assert float(warm_up) == detector.warm_up


def test_weights_that_are_large_from_the_start_have_not_grown() -> None:
    """Of StyleGAN2's mapping network: its rate is a hundredth, so `style` alarmed at once."""
    large = [tick(number, weights_G=20_000.0 + number) for number in range(1, 6)]
    assert found(large) == []
    (alarm,) = found([*large, tick(6, weights_G=2.1e6)])
    assert (alarm.failure, alarm.player) == ("divergence", "G")


def test_weights_that_explode_before_the_first_tick_have_grown() -> None:
    """They are compared with the untrained ones as long as there is no usual size yet."""
    untrained = {"untrained_weights_G": 15.0, "untrained_weights_D": 9.0}
    exploded = [tick(n, weights_G=1600.0 + n, **untrained) for n in range(1, 6)]
    (alarm,) = found(exploded[:1])
    assert (alarm.failure, alarm.player) == ("divergence", "G")
    assert alarm.value == pytest.approx(1601 / 15)
    # It is told once: no tick is worse than the ones before.
    assert found(exploded) == []
    assert found([tick(1, weights_G=1400.0, **untrained)]) == []
    assert found([tick(1, weights_G=900.0, untrained_weights_G=0.1)]) == []
