"""Which checkpoints of a run are kept, and which one is exported: --keep and --select."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from training.errors import ConfigError
from training.evaluation.looks import FIGURES, HEADLINE, OF_POINTS
from training.runs.quality import Look, best_look

LAST = "last"
BEST = "best"
SELECTIONS = (LAST, BEST, *FIGURES, *OF_POINTS)
_NUMBER = re.compile(r"[1-9][0-9]{0,3}")


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """Checkpoints to keep beside the newest two, of which one is resumed from."""

    best: bool
    """Keep the one at the best look."""
    num_spread: int
    """Keep so many, spread evenly over the training."""
    figure: str
    """The look with the best of this figure is the best one."""

    @classmethod
    def parse(cls, text: str, select: str, headline: str = HEADLINE) -> "Keeping":
        """Parses --keep beside --select. headline: the figure by which a look is the best one.

        Raises:
            ConfigError: a word of either is unknown, or one contradicts the other.
        """
        words = [word.strip() for word in text.split(",")]
        unknown = [w for w in words if w not in (LAST, BEST) and not _NUMBER.fullmatch(w)]
        numbers = [int(word) for word in words if _NUMBER.fullmatch(word)]
        if unknown or LAST not in words or len(numbers) > 1:
            raise ConfigError(
                f"keep is {text!r}, allowed: last, or with more behind commas: best, and one whole "
                "number of checkpoints spread over the training, as in best,last,10; last is "
                "always part of it, or nothing could be resumed; set --keep"
            )
        if select not in SELECTIONS:
            raise ConfigError(
                f"select is {select!r}, allowed: {', '.join(SELECTIONS)}; set --select"
            )
        if select != LAST and BEST not in words:
            raise ConfigError(
                f"select is {select!r}, but keep is {text!r}: the best checkpoint is not kept; add "
                "best to --keep"
            )
        figure = headline if select in (LAST, BEST) else select
        return cls(best=BEST in words, num_spread=next(iter(numbers), 0), figure=figure)

    def kept(
        self, numbers: Sequence[int], looks: Sequence[Look], total_nimg: int
    ) -> Collection[int]:
        """Chooses from the images shown at each checkpoint, ascending."""
        found: set[int] = set()
        best = best_look(looks, self.figure, among=numbers) if self.best else None
        if best is not None:
            found.add(round(best["cur_nimg"]))
        parts: dict[int, int] = {}
        for number in numbers if self.num_spread else ():
            parts.setdefault(number * self.num_spread // total_nimg, number)
        return found | {number for part, number in parts.items() if part}
