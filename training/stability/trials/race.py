"""A race of weights: every draw is played at all that are still in it, and losers leave.

A weight leaves once its mean is below the best one's by more than the trials' own error allows,
and at once where its trial diverges (after Maron and Moore 1994, Hoeffding races). While the best
weight is the lightest or the heaviest of the ladder, the ladder grows there.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from training.errors import ConfigError
from training.stability.trials.choice import choose, qualities, ranked
from training.stability.trials.quality import WORST
from training.stability.trials.trial import Trial

NUM_WEIGHTS = 7
FACTOR = 10**0.5
MOST_MORE = 4
"""Weights that the ladder may grow by."""
_CENTRE = 0.1
"""Where the penalty isn't there: the middle weight of the ladder."""

Play = Callable[[float, int], Trial]
"""Plays a weight on the draws of a number; raises ConfigError for a weight that isn't allowed."""


def ladder(present: float) -> list[float]:
    """Returns weights half a decade apart around the present one, ascending.

    present: 0 for a game without the penalty; it is then one of the weights.
    """
    steps = range(-(NUM_WEIGHTS // 2), NUM_WEIGHTS // 2 + 1)
    weights = [rounded((present or _CENTRE) * FACTOR**step) for step in steps]
    return weights if present else [0.0, *weights[1:]]


def rounded(weight: float) -> float:
    """Returns the weight with three digits: nobody types more."""
    return float(f"{weight:.3g}")


@dataclass(kw_only=True)
class Race:
    """A race of the weights of one penalty."""

    play: Play
    present: float
    """The weight that the run has; 0 where it has no such penalty. It is played to the end, so
    that there is something to compare with."""
    num_draws: int
    """Draws that are played, 2 or more."""
    trials: list[Trial] = field(init=False, default_factory=list)
    """What was played."""
    racing: list[float] = field(init=False)
    """Weights that are still in it, ascending."""
    _num_more: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        """Begins with the ladder around the present weight."""
        self.racing = ladder(self.present)

    @property
    def num_left(self) -> int:
        """Trials that are still to come, where nothing leaves and the ladder doesn't grow."""
        return self.num_draws * len(self.racing) - sum(
            len(each) for weight, each in qualities(self.trials).items() if weight in self.racing
        )

    def run(self) -> Iterator[Trial]:
        """Plays, and yields each trial once it has ended."""
        for draw in range(self.num_draws):
            if not self.racing:
                return
            for weight in tuple(self.racing):
                yield from self._played(weight, draw)
            yield from self._grown(draw)
            self._drop(draw)

    def _played(self, weight: float, draw: int) -> Iterator[Trial]:
        try:
            trial = self.play(weight, draw)
        except ConfigError:
            # Beyond what this penalty allows; the present weight was allowed in the training.
            if weight == self.present:
                raise
            self.racing.remove(weight)
            return
        self.trials.append(trial)
        yield trial

    def _grown(self, draw: int) -> Iterator[Trial]:
        """Adds weights beyond the best one while that is the last on its side."""
        while self._num_more < MOST_MORE:
            best = next((w for w in ranked(self.trials) if w in self.racing), 0.0)
            steps = {min(self.racing): 1 / FACTOR, max(self.racing): FACTOR}
            weight = rounded(best * steps.get(best, 0.0))
            if not weight or weight in qualities(self.trials):
                return
            self._num_more += 1
            self.racing = sorted([*self.racing, weight])
            for each in range(draw + 1):
                if weight in self.racing:
                    yield from self._played(weight, each)
            if weight not in self.racing:
                return

    def _drop(self, draw: int) -> None:
        """Lets those leave that diverged, or are worse than the best beyond the error."""
        found = qualities(self.trials)
        finite = [w for w in self.racing if min(found[w]) > WORST]
        choice = choose((t for t in self.trials if t.weight in finite), self.present)
        if choice is None:
            self.racing = []
            return
        means = {weight: float(np.mean(found[weight])) for weight in finite}
        least = means[choice.best] - choice.margin
        self.racing = [w for w in finite if means[w] >= least or w == self.present]
