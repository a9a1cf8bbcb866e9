"""Turns detectors into alarms: counts the ticks in a row at which each detector fires.

The history of a training grows, and each tick is examined once, so that the cost of a tick stays
the same however long the training and its failures last. After a rescue the history is shorter, and
is examined again from the start.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from training.watchdog.detectors import (
    DETECTORS,
    Alarm,
    Baseline,
    Diagnostics,
    History,
    fastest_growing,
)


@dataclass
class _Count:
    """The ticks in a row at which one detector fired, up to the last tick."""

    num: int = 0
    since_nimg: int = 0
    value: float = 0.0


class AlarmCounter:
    """Counts the ticks at which each detector fires in one training."""

    def __init__(self, *, total_nimg: int, ignore: Sequence[str] = ()) -> None:
        """Starts with an empty history.

        Args:
            total_nimg: images of the whole training; warm-ups are shares of it.
            ignore: failures not to look for.
        """
        self._starts = {
            failure: max(detector.warm_up * total_nimg, detector.after_nimg)
            for failure, detector in DETECTORS.items()
            if failure not in ignore
        }
        self._reset()

    def follow(self, history: History) -> "AlarmCounter":
        """Examines the new ticks of a history, or all after a rescue; returns itself."""
        num, last = self._baseline.num, self._baseline.last
        # A rescue puts an older history in place: it is shorter, or another tick is at its end.
        if num > len(history) or (num and history[num - 1] is not last):
            self._reset()
        for diagnostics in history[self._baseline.num :]:
            self._examine(diagnostics)
        return self

    def alarms(self) -> list[Alarm]:
        """The detectors that have fired for their whole window."""
        return [
            Alarm(
                failure=failure,
                value=count.value,
                since_nimg=count.since_nimg,
                cur_nimg=self._cur_nimg,
                player=self._player if failure == "divergence" else None,
                is_new=count.num == DETECTORS[failure].window,
            )
            for failure, count in self._counts.items()
            if count.num >= DETECTORS[failure].window
        ]

    def pending_since(self) -> int | None:
        """Images shown when the detector that has been firing longest began; None for none."""
        return min((count.since_nimg for count in self._counts.values() if count.num), default=None)

    def _reset(self) -> None:
        self._baseline = Baseline()
        self._counts = {failure: _Count() for failure in self._starts}
        self._cur_nimg = 0
        self._player: Literal["G", "D"] | None = None

    def _examine(self, diagnostics: Diagnostics) -> None:
        self._cur_nimg = int(diagnostics["cur_nimg"])
        self._player = fastest_growing(diagnostics, self._baseline)
        for failure, count in self._counts.items():
            value = DETECTORS[failure].figure(diagnostics, self._baseline)
            fires = DETECTORS[failure].fires(value)
            if value is None or not fires or self._cur_nimg <= self._starts[failure]:
                count.num = 0
                continue
            if not count.num:
                count.since_nimg = self._cur_nimg
            count.num, count.value = count.num + 1, value
        self._baseline.add(diagnostics)
