"""`path RUN`: the field between two checkpoints, last against average iterate, G's conditioning."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from training.engine.state import State
from training.errors import StabilityError, require
from training.finite_json import as_json
from training.stability.commands.results import keep
from training.stability.course import PathAngle, conditioning, path_angle
from training.stability.memory import Held
from training.stability.opening import opened
from training.stability.progress import Progress
from training.stability.run_game import RunGame

START = "start"
_NUM_LATENTS = 16
_CLEAR = 0.1  # of a cosine


@dataclass(frozen=True, kw_only=True)
class PathCommand:
    """Looks along the line from the start of a run, or a later point, to where it stands."""

    needs_run: ClassVar[bool] = True
    checkpoint: str | None = None
    """Where the line ends: name of a file in RUN/checkpoints, or a path; the newest by default."""
    since: str = START
    """Where it begins: start, the untrained networks, or another checkpoint."""
    points: int = 100
    """Points on the line."""
    batch_size: int | None = None
    """Images of the batch; the training's batch size by default."""
    json: bool = False
    """Print JSON, with the whole curve, instead of text."""

    def run(self, folder: Path, say: Callable[[str], None]) -> str:
        """Returns the report. folder: of the run. say: is given lines of progress.

        Raises:
            TrainingError: the run can't be read, or the line has no length.
        """
        require(self.points >= 12, "points", self.points, "12 or more", "set --points")
        game = RunGame.open(folder, self.checkpoint)
        (batch,) = opened(game, Held(fields=1, vectors=4), batch_size=self.batch_size)
        field = game.field(batch)
        start = self._start(game)
        if torch.equal(start, field.place):
            raise StabilityError(
                f"since is {self.since!r}: the place where the line ends, so there is no line; "
                "name another checkpoint, or leave --since out"
            )
        counted = Progress(say).counted("points", field, self.points)
        along = path_angle(counted, start, field.place, num=self.points)
        last, average = _speed_of_G(game, field, field.place), self._average_speed(game, field)
        label = None if batch.label is None else batch.label[:_NUM_LATENTS]
        numbers = conditioning(game.averaged_G(), batch.z[:_NUM_LATENTS], label)
        result = _record(game, self.since, along, last, average, numbers)
        keep(folder, "path", game.state.cur_nimg, result, say)
        if self.json:
            return as_json(result)
        return _text(game, self.since, along, last, average, numbers)

    def _start(self, game: RunGame) -> torch.Tensor:
        if self.since == START:
            state = State.fresh(game.config, game.image_set.shape, torch.device("cpu"))
        else:
            state = RunGame.open(game.folder, self.since).state
        return torch.cat([each.detach().double().flatten() for each in state.parameters()])

    def _average_speed(self, game: RunGame, field: Any) -> float:
        """|v_G| with the averaged weights in G's place."""
        theta = game.averaged_theta()
        return _speed_of_G(game, field, torch.cat([theta, field.part("D", field.place)]))


def _speed_of_G(game: RunGame, field: Any, place: torch.Tensor) -> float:
    speed: float = field.part("G", field(place)).norm().item()
    return speed


def verdict(along: PathAngle) -> str:
    """Says what the end of the line is like."""
    if along.attraction > _CLEAR:
        return "The end attracts along this line: before it the field leads on, beyond it back."
    if along.attraction < -_CLEAR:
        return "The end repels along this line."
    return "The end neither attracts nor repels along this line: the field crosses or circles it."


def _text(
    game: RunGame,
    since: str,
    along: PathAngle,
    last: float,
    average: float,
    numbers: np.ndarray,
) -> str:
    lines = [
        f"{game.config.recipe}, from {since} to {game.checkpoint.name}: "
        f"{game.state.cur_nimg / 1000:.3f} kimg",
        verdict(along),
        "",
        f"{'a':>6}{'cos':>9}{'|v|':>11}",
    ]
    chosen = sorted({int(np.abs(along.shares - a).argmin()) for a in np.arange(-0.1, 1.11, 0.1)})
    lines += [
        f"{along.shares[i]:>6.2f}{along.cosines[i]:>9.3f}{along.speeds[i]:>11.4g}" for i in chosen
    ]
    ordered = np.sort(numbers)  # not quantiles: some may be infinite
    low, middle, high = ordered[[0, len(ordered) // 2, -1]]
    return "\n".join(
        [
            *lines,
            "",
            f"|v| of G, last iterate {last:.4g}, averaged {average:.4g}, both against the last D.",
            f"Condition number of dG/dz at {len(numbers)} latents: median {middle:.4g}, "
            f"{low:.4g} to {high:.4g}.",
            "One line through a space of many dimensions: what is beside it isn't seen.",
        ]
    )


def _record(
    game: RunGame, since: str, along: PathAngle, last: float, average: float, numbers: np.ndarray
) -> dict[str, Any]:
    return {
        "run": str(game.folder),
        "checkpoint": game.checkpoint.name,
        "cur_nimg": game.state.cur_nimg,
        "since": since,
        "verdict": verdict(along),
        "a": along.shares.tolist(),
        "cosine": along.cosines.tolist(),
        "speed": along.speeds.tolist(),
        "attraction": along.attraction,
        "speed_G_last": last,
        "speed_G_average": average,
        "conditioning": numbers.tolist(),
    }
