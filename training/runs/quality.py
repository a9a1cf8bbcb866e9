"""Looks at how good the images are while a training goes on: when, what is kept, what is said.

A look measures G_ema (`training.evaluation.looks`) at the end of a tick, so that there is a
checkpoint of exactly these weights. What was seen is part of the state: it goes back with a rescue,
and a resumed training has it.
"""

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from models.bundle.generator import Sampler
from training.engine.state import State
from training.errors import EvaluationError
from training.evaluation.looks import HEADLINE, Figures, Looker, better

PREFIX = "quality."
NUM_LOOKS = 20
MOST_SHARE = 0.03
"""The looks' share of the time, at most, where --evaluate-kimg doesn't say how often to look."""
_LEAST_LEFT_S = 0.5  # of that share, before the floor and the ceiling are measured
_MUCH = 0.2  # of the distance from real images: by so much the best is much better than the last
_STALE_LOOKS = 5
_STALE_SHARE = 0.25  # of the images shown so far: so long without a better look is said
_LEAST_GAIN = 0.02  # a look that is better by less is no better

Look = dict[str, float]


@dataclass(kw_only=True)
class Looks:
    """The looks of one training, by the process that leads it."""

    looker: Looker
    sampler: Callable[[State], Sampler]
    """The images of a state's G_ema."""
    total_nimg: int
    """Images of the whole training."""
    evaluate_nimg: int | None
    """Images from a look to the next; None for about NUM_LOOKS within MOST_SHARE of the time."""
    wants_last: bool = False
    """True where the last state is looked at whatever that costs."""
    say: Callable[[str], None]
    spent_s: float = field(init=False, default=0.0)
    """Seconds that the looks took so far."""
    _start_s: float = field(init=False)
    _expected_s: float | None = field(init=False, default=None)
    _said_stale: float = field(init=False, default=-1.0)
    _has_failed: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        """Starts the clock of the training."""
        self._start_s = time.monotonic()

    def at_tick(self, state: State) -> Figures:
        """Looks where it is due, and adds the look to the state's.

        Returns:
            The figures for the journal, with their floors and ceilings; empty without a look.
        """
        if not self._is_due(state):
            return {}
        start = time.monotonic()
        try:
            found = self.looker.look(self.sampler(state))
        except EvaluationError as error:
            if not self._has_failed:
                self.say(f"warning: no look at the images: {error}")
            self._has_failed = True
            return {}
        finally:
            self._expected_s = time.monotonic() - start
            self.spent_s += self._expected_s
        state.looks.append({"cur_nimg": state.cur_nimg, **found})
        self._say_stale(state.looks)
        ends = {"floor": self.looker.floor, "ceiling": self.looker.ceiling}
        return {f"{PREFIX}{name}": value for name, value in found.items()} | {
            f"{PREFIX}{name}.{end}": values[name] for end, values in ends.items() for name in values
        }

    def _is_due(self, state: State) -> bool:
        if not self.looker.figures:
            return False
        every = self.evaluate_nimg or self.total_nimg / NUM_LOOKS
        last = max((look["cur_nimg"] for look in state.looks), default=0.0)
        is_last = state.cur_nimg >= self.total_nimg
        if last == state.cur_nimg:  # resumed at its end
            return False
        if not is_last and state.cur_nimg // every == last // every:
            return False
        if self.evaluate_nimg is not None or (is_last and self.wants_last):
            return True
        # What the look at the end is going to take is left over for it.
        return self._is_affordable(state, 1 if is_last else 2)

    def _is_affordable(self, state: State, num: int) -> bool:
        """True where so many looks fit into what is left of their share of the time."""
        if self._expected_s is None:
            if self._left_s < _LEAST_LEFT_S:
                return False
            start = time.monotonic()
            self._expected_s = self.looker.prepare(self.sampler(state))
            self.spent_s += time.monotonic() - start
        return num * self._expected_s <= self._left_s

    @property
    def _left_s(self) -> float:
        return MOST_SHARE * (time.monotonic() - self._start_s) - self.spent_s

    def _say_stale(self, looks: Sequence[Look]) -> None:
        since = stale_since(looks)
        if since is not None and since != self._said_stale:
            self._said_stale = since
            best = next(look for look in looks if look["cur_nimg"] == since)
            self.say(
                f"quality: the images haven't become better since {since / 1000:.1f} kimg (Frechet "
                f"distance {best[HEADLINE]:.4g} then, {looks[-1][HEADLINE]:.4g} now); --select "
                "best exports the best, and a longer training is likely to gain nothing"
            )


def best_look(
    looks: Sequence[Look], figure: str = HEADLINE, *, among: Collection[int] | None = None
) -> Look | None:
    """The look with the best figure, the earliest of equals; None where none has it.

    among: the images shown at the looks to choose from, as there is a checkpoint; None for all.
    """
    best: Look | None = None
    for look in looks:
        if among is not None and look["cur_nimg"] not in among:
            continue
        if figure in look and (best is None or better(figure, look[figure], best[figure])):
            best = look
    return best


def stale_since(looks: Sequence[Look]) -> float | None:
    """Images shown at the best look, where the images haven't become better for long since.

    A look counts as better where its Frechet distance is smaller by _LEAST_GAIN. None while they
    become better, or where there are too few looks to tell.
    """
    known = [look for look in looks if HEADLINE in look]
    if not known:
        return None
    best = 0
    for index, look in enumerate(known):
        if look[HEADLINE] < known[best][HEADLINE] * (1 - _LEAST_GAIN):
            best = index
    last = known[-1]["cur_nimg"]
    since = known[best]["cur_nimg"]
    is_long = len(known) - 1 - best >= _STALE_LOOKS and last - since >= _STALE_SHARE * last
    return since if is_long else None


def much_better(
    looks: Sequence[Look], floor: Figures, *, among: Collection[int] | None = None
) -> str | None:
    """A sentence where the best look was much better than the last one; None where it was not.

    among: the images shown at the looks to choose from; None for all.
    """
    best = best_look(looks, among=among)
    if best is None or best is looks[-1] or HEADLINE not in looks[-1]:
        return None
    last, least = looks[-1][HEADLINE], floor.get(HEADLINE, 0.0)
    if not math.isfinite(last) or last - best[HEADLINE] <= _MUCH * max(last - least, least):
        return None
    return (
        f"quality: the images were much better at {best['cur_nimg'] / 1000:.1f} kimg (Frechet "
        f"distance {best[HEADLINE]:.4g}) than they are at the end ({last:.4g})"
    )
