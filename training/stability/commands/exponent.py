"""`exponent RUN`: the Lyapunov exponent of a run from one of its checkpoints on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from training.data import Batches
from training.errors import StabilityError, require
from training.finite_json import as_json
from training.stability.commands.results import keep
from training.stability.memory import Held
from training.stability.opening import opened
from training.stability.progress import Progress
from training.stability.run_game import RunGame
from training.stability.twins import BLOCK, NUM_ROUNDS, Exponent, exponent, twin_of

_SURE = 2.0  # standard errors
# Each twin has weights, gradients, two moments, an average, and what its round remembers.
_HELD = Held(fields=1, vectors=16)


@dataclass(frozen=True, kw_only=True)
class ExponentCommand:
    """Lets two copies of a run train on, a hair apart, and measures how fast they part."""

    needs_run: ClassVar[bool] = True
    checkpoint: str | None = None
    """Name of a file in RUN/checkpoints, or a path; the newest by default."""
    rounds: int = NUM_ROUNDS
    """Rounds that both copies play."""
    block: int = BLOCK
    """Rounds after which their distance is set back."""
    json: bool = False
    """Print JSON instead of text."""

    def run(self, folder: Path, say: Callable[[str], None]) -> str:
        """Returns the report. folder: of the run. say: is given lines of progress.

        Raises:
            TrainingError: the run can't be read, diverges or stands still, or memory is too small.
        """
        require(self.block >= 1, "block", self.block, "1 or more", "set --block")
        least = 2 * self.block
        allowed = f"{least} or more, two blocks"
        require(self.rounds >= least, "rounds", self.rounds, allowed, "set --rounds")
        game = RunGame.open(folder, self.checkpoint)
        config, state = game.config, game.state
        size = config.batch_size
        at_most = f"at most {len(game.image_set)}, the images of {game.image_set.name}"
        require(size <= len(game.image_set), "batch_size", size, at_most, "give it all of its data")
        if not any(options.lr for options in game.rates.values()):
            raise StabilityError(
                "the rates are 0 here: nothing moves, and twins stay as they are; choose another "
                "checkpoint with --checkpoint"
            )
        remedy = "this training needs that itself, twice and in float64: free some, or train a "
        opened(game, _HELD, batch_size=size, remedy=f"{remedy}smaller game")
        source = Batches(game.image_set, batch_size=size, seed=config.seed)
        twins = [twin_of(config, state, source) for _ in range(2)]
        counted = Progress(say).counted("rounds of both", lambda: None, self.rounds)
        found = exponent(*twins, num_rounds=self.rounds, block=self.block, on_round=counted)
        record = {
            "run": str(folder),
            "checkpoint": game.checkpoint.name,
            "cur_nimg": state.cur_nimg,
            "verdict": verdict(found),
            "exponent": found.value,
            "standard_error": found.error,
            "block": self.block,
            "blocks": found.blocks,
        }
        keep(folder, "exponent", state.cur_nimg, record, say)
        if self.json:
            return as_json(record)
        return "\n".join(
            [
                f"{config.recipe}, {game.checkpoint.name}: {state.cur_nimg / 1000:.3f} kimg",
                f"Lyapunov exponent: {found.value:+.5f} +- {found.error:.5f} a round "
                f"({len(found.blocks)} blocks of {self.block} rounds)",
                verdict(found),
                "From here on, not for ever: a training that settles has another exponent later.",
            ]
        )


def verdict(found: Exponent) -> str:
    """Says what the exponent means."""
    if abs(found.value) < _SURE * found.error:
        return "Neither parts nor closes beyond its error: the game stays, circles or drifts."
    rounds = 1 / max(abs(found.value), 1e-12)
    if found.value > 0:
        return f"Twins part: an unseen change grows e-fold in {rounds:.0f} rounds."
    return f"Twins meet: a change is forgotten e-fold in {np.ceil(rounds):.0f} rounds."
