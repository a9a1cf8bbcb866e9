"""Streaks: how many ticks in a row each sign has shown, and so which failures are alarms.

Follows a history that grows: a tick is looked at once, so that a look costs the same after ten
ticks and after ten thousand, whatever stands. A history that was put back to an earlier tick is
gone through anew. Knows signs, and no more of a training than its history.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from training.stability.signs import SIGNS, Alarm, History, Past, Vitals, grown


@dataclass
class _Streak:
    """Of one sign, up to the last tick."""

    num: int = 0
    since_nimg: int = 0
    value: float = 0.0


class Streaks:
    """The streaks of one training."""

    def __init__(self, *, total_nimg: int, ignore: Sequence[str] = ()) -> None:
        """total_nimg: the training's length, of which warm-ups are shares."""
        self._starts = {
            failure: max(sign.warm_up * total_nimg, sign.after_nimg)
            for failure, sign in SIGNS.items()
            if failure not in ignore
        }
        self._forget()

    def follow(self, history: History) -> "Streaks":
        """Looks at the ticks that are new; returns itself."""
        num, last = self._past.num, self._past.last
        if num > len(history) or (num and history[num - 1] is not last):
            self._forget()
        for vitals in history[self._past.num :]:
            self._look(vitals)
        return self

    def alarms(self) -> list[Alarm]:
        """The signs that have shown for their whole window."""
        return [
            Alarm(
                failure=failure,
                value=streak.value,
                since_nimg=streak.since_nimg,
                cur_nimg=self._cur_nimg,
                player=self._player if failure == "divergence" else None,
                is_new=streak.num == SIGNS[failure].window,
            )
            for failure, streak in self._streaks.items()
            if streak.num >= SIGNS[failure].window
        ]

    def pending_since(self) -> int | None:
        """Images shown at the tick at which the oldest sign that shows now began."""
        return min((s.since_nimg for s in self._streaks.values() if s.num), default=None)

    def _forget(self) -> None:
        self._past = Past()
        self._streaks = {failure: _Streak() for failure in self._starts}
        self._cur_nimg = 0
        self._player: Literal["G", "D"] | None = None

    def _look(self, vitals: Vitals) -> None:
        self._cur_nimg = int(vitals["cur_nimg"])
        self._player = grown(vitals, self._past)
        for failure, streak in self._streaks.items():
            value = SIGNS[failure].figure(vitals, self._past)
            shows = SIGNS[failure].shows(value)
            if value is None or not shows or self._cur_nimg <= self._starts[failure]:
                streak.num = 0
                continue
            if not streak.num:
                streak.since_nimg = self._cur_nimg
            streak.num, streak.value = streak.num + 1, value
        self._past.take_in(vitals)
