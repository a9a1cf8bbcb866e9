"""The watchdog: examines a training at every tick and raises alarms for known failures.

The figures are computed in `training.watchdog.diagnostics`, compared with thresholds in `detectors`
and counted in `alarms`; `remedies` has the changes of a rescue. Acting on an alarm is up to
`training.runs.trainer`.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from training.config.training import TrainingConfig
from training.data import ImageSet
from training.engine.meters import Meters
from training.engine.state import State
from training.errors import NonFinite
from training.watchdog.alarms import AlarmCounter
from training.watchdog.detectors import DETECTORS, Alarm, Diagnostics
from training.watchdog.diagnostics import DiagnosticsReader, weight_norms
from training.watchdog.remedies import Remedy, Weights, choose

PREFIX = "watch."
_SERIES = ("loss_G.adversarial", "loss_D.adversarial")


@dataclass(frozen=True, kw_only=True)
class Rescue:
    """A rescue that was made. config.json lists them, so that a resumed run counts them, too."""

    failure: str
    """Entry of DETECTORS."""
    cur_nimg: int
    """Images shown at the alarm."""
    before: str
    """The alarm's message."""
    to_nimg: int
    """Images shown at the checkpoint that the training went back to."""
    remedy: str
    """Entry of REMEDIES."""
    change: str
    """The changed options, before -> after."""

    def __str__(self) -> str:
        return f"back to {self.to_nimg / 1000:.3f} kimg and {self.remedy}: {self.change}"


class Watchdog:
    """Watches one training. What it remembers is in the state's history."""

    def __init__(self, config: TrainingConfig, image_set: ImageSet, state: State) -> None:
        """Begins to watch; the size of weights that are still untrained is kept in the state.

        Args:
            config: of the training.
            image_set: on the players' device.
            state: that it will be shown.
        """
        if not state.cur_nimg:
            state.untrained = weight_norms(state)
        self._reader = DiagnosticsReader(config, image_set)
        self._counter = AlarmCounter(total_nimg=config.total_nimg, ignore=config.watchdog.ignore)

    def read(self, state: State, means: dict[str, float], meters: Meters) -> Diagnostics:
        """Computes the diagnostics of a tick and appends them to the state's history.

        Args:
            state: the training's state.
            means: the means of the tick's scalars, by name.
            meters: the tick's scalars round by round.
        """
        series = {name: meters.series(name) for name in _SERIES}
        diagnostics = self._reader.read(state, means, series)
        state.history.append(diagnostics)
        return diagnostics

    def alarms(self, state: State) -> list[Alarm]:
        """The alarms after the last tick of the state's history."""
        return self._counter.follow(state.history).alarms()


def journal_figures(diagnostics: Diagnostics) -> dict[str, float]:
    """The diagnostics that the journal doesn't have already, with the prefix "watch."."""
    own = {name for name in diagnostics if name != "cur_nimg" and not name.startswith("gradient_")}
    return {f"{PREFIX}{name}": diagnostics[name] for name in sorted(own)}


def alarm_of(non_finite: NonFinite, state: State) -> Alarm:
    """The alarm for a loss or gradient that isn't finite: a divergence, without a window.

    Its player is the one whose weights have grown more since the last tick, or the start, since G's
    weights often show first in D's loss. If neither player's have doubled, it is the one whose loss
    or gradient isn't finite.
    """
    last = state.history[-1] if state.history else state.untrained
    now = weight_norms(state)
    grown = {name: norm / max(last.get(name, norm), 1e-12) for name, norm in now.items()}
    by_weights: Literal["G", "D"] = "G" if grown["weights_G"] > grown["weights_D"] else "D"
    by_terms: Literal["G", "D"] = "G" if all("_G" in term for term in non_finite.terms) else "D"
    return Alarm(
        failure="divergence",
        value=float("inf"),
        since_nimg=non_finite.cur_nimg + 1,  # a checkpoint at cur_nimg is still good
        cur_nimg=non_finite.cur_nimg,
        player=by_weights if max(grown.values()) > 2 else by_terms,
    )


def remedy_for(
    alarm: Alarm,
    config: TrainingConfig,
    rescues: tuple[Rescue, ...],
    measure: Callable[[], Weights] | None = None,
    *,
    cur_nimg: int = 0,
) -> Remedy | None:
    """Chooses the remedy for an alarm; None after max_rescues, or where no remedy applies.

    rescues: those of the run so far. measure, cur_nimg: as `choose` takes them.
    """
    if len(rescues) >= config.watchdog.max_rescues:
        return None
    tried = {rescue.remedy for rescue in rescues if rescue.failure == alarm.failure}
    return choose(config, alarm, tried, measure, cur_nimg=cur_nimg)


def report(
    config: TrainingConfig, seen: list[Alarm], rescues: tuple[Rescue, ...]
) -> dict[str, Any]:
    """The content of watchdog.json: thresholds, alarms and rescues.

    Args:
        config: of the training.
        seen: every alarm of this process.
        rescues: every rescue of the run.
    """
    return {
        "action": config.watchdog.action,
        "signs": {
            name: {
                "figure": detector.quantity,
                detector.alarming: detector.threshold,
                "window_ticks": detector.window,
                "warm_up": detector.warm_up,
            }
            for name, detector in DETECTORS.items()
            if name not in config.watchdog.ignore
        },
        "alarms": [{**asdict(alarm), "says": str(alarm)} for alarm in seen],
        "rescues": [asdict(rescue) for rescue in rescues],
    }
