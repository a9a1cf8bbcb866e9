"""The watchdog: looks at a training at its ticks and says when it shows a known failure.

Signs and thresholds are `training.stability.signs`', figures `training.stability.vitals`', what a
rescue changes `training.stability.remedies`'. Knows no file, and doesn't act: the course of the
training does (`training.course`).
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from training.config import TrainingConfig
from training.data import ImageSet
from training.guard import Trip
from training.meters import Meters
from training.stability.remedies import Remedy, choose
from training.stability.signs import SIGNS, Alarm, Vitals
from training.stability.streaks import Streaks
from training.stability.vitals import Look, weights
from training.state import State

PREFIX = "watch."
_USUAL = 100.0  # norm of weights that one needn't wonder at
_SERIES = ("loss_G.adversarial", "loss_D.adversarial")


@dataclass(frozen=True, kw_only=True)
class Rescue:
    """What was done about an alarm; kept in config.json, so that it is counted once and for all."""

    failure: str
    """Entry of SIGNS."""
    cur_nimg: int
    """Images shown when it was seen."""
    before: str
    """What was seen."""
    to_nimg: int
    """Images shown at the checkpoint that the training went back to."""
    remedy: str
    """Entry of REMEDIES."""
    change: str
    """Options, before -> after."""

    def __str__(self) -> str:
        return f"back to {self.to_nimg / 1000:.3f} kimg and {self.remedy}: {self.change}"


class Watchdog:
    """Watches one training; its memory is the state's history."""

    def __init__(self, config: TrainingConfig, image_set: ImageSet) -> None:
        """image_set: on the device where the players are."""
        self._look = Look(config, image_set)
        self._streaks = Streaks(total_nimg=config.total_nimg, ignore=config.watchdog.ignore)

    def read(self, state: State, means: dict[str, float], meters: Meters) -> Vitals:
        """The vitals of a tick, added to the state's history."""
        vitals = self._look.read(state, means, {name: meters.series(name) for name in _SERIES})
        state.history.append(vitals)
        return vitals

    def alarms(self, state: State) -> list[Alarm]:
        """Failures that the history shows."""
        return self._streaks.follow(state.history).alarms()


def figures(vitals: Vitals) -> dict[str, float]:
    """The vitals that the journal doesn't have, named for it."""
    own = {name for name in vitals if name != "cur_nimg" and not name.startswith("gradient_")}
    return {f"{PREFIX}{name}": vitals[name] for name in sorted(own)}


def alarm_of(trip: Trip, state: State) -> Alarm:
    """What is not finite is a divergence, without a window.

    The player concerned is the one whose weights have grown more since the last tick: D's loss is
    the first to tell of G's images too. Where neither has doubled, it is the one that tripped.
    """
    last = state.history[-1] if state.history else {}
    grown = {
        player: weights(state.seat(player).parameters) / last.get(f"weights_{player}", _USUAL)
        for player in "GD"
    }
    by_weights: Literal["G", "D"] = "G" if grown["G"] > grown["D"] else "D"
    by_terms: Literal["G", "D"] = "G" if all("_G" in term for term in trip.terms) else "D"
    return Alarm(
        failure="divergence",
        value=float("inf"),
        since_nimg=trip.cur_nimg + 1,  # up to there all was well
        cur_nimg=trip.cur_nimg,
        player=by_weights if max(grown.values()) > 2 else by_terms,
    )


def remedy_for(alarm: Alarm, config: TrainingConfig, rescues: tuple[Rescue, ...]) -> Remedy | None:
    """What to change; None where the training was rescued often enough, or nothing is left."""
    if len(rescues) >= config.watchdog.max_rescues:
        return None
    tried = {rescue.remedy for rescue in rescues if rescue.failure == alarm.failure}
    return choose(config, alarm, tried)


def report(
    config: TrainingConfig, seen: list[Alarm], rescues: tuple[Rescue, ...]
) -> dict[str, Any]:
    """What watchdog.json holds: the rules, every alarm of this process, every rescue of the run."""
    return {
        "action": config.watchdog.action,
        "signs": {
            name: {
                "figure": sign.says,
                sign.alarming: sign.threshold,
                "window_ticks": sign.window,
                "warm_up": sign.warm_up,
            }
            for name, sign in SIGNS.items()
            if name not in config.watchdog.ignore
        },
        "alarms": [{**asdict(alarm), "says": str(alarm)} for alarm in seen],
        "rescues": [asdict(rescue) for rescue in rescues],
    }
