"""`gamma RUN`: which weight of a penalty damps a run's game, and by trials which is the best.

The damping is measured at the checkpoint. Trials play the game on at several weights and measure
the images. These are two questions, and the text keeps them apart.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from training.errors import ConfigError, StabilityError, require
from training.finite_json import as_json
from training.game.penalties import PENALTIES
from training.stability.commands import trials as trying
from training.stability.commands.results import keep
from training.stability.critical_weights import held, rounds_at
from training.stability.damping import DAMPED, Damping, damping
from training.stability.opening import difference_on, opened
from training.stability.progress import Progress
from training.stability.run_game import RunGame

_DEFAULT = "r1"
CAVEAT = (
    "Measured at this checkpoint: damping of what turns here, not a forecast of quality. Too much "
    "slows the slow modes."
)
CAVEAT_OF_TRIALS = (
    "Trials say which images are the best after so many images from where they began: what "
    "they can't tell apart, and what a longer training does, they don't say."
)


@dataclass(frozen=True, kw_only=True)
class GammaCommand:
    """Measures how a penalty's weight and the learning rates move the leading eigenvalues."""

    needs_run: ClassVar[bool] = True
    checkpoint: str | None = None
    """Name of a file in RUN/checkpoints, or a path; the newest by default."""
    penalty: tuple[str, ...] = ()
    """Penalties whose weights are looked at, one by one; by default those of the run, or r1 where
    it has none."""
    batch_size: int | None = None
    """Images of the batch; the training's batch size by default."""
    num: int = 6
    """Eigenvalues of each kind."""
    trials: float | None = None
    """Also play the game on from the checkpoint, so many thousands of images at each of seven
    weights half a decade apart, and measure the images: the slow answer, and not of damping."""
    from_start: bool = False
    """With --trials: begin at new weights of both players, not at the checkpoint: which weight to
    begin with, not which to go on with."""
    draws: int = trying.NUM_DRAWS
    """With --trials: times that each weight is played, each time on other draws, alike for all."""
    json: bool = False
    """Print JSON instead of text."""

    def run(self, folder: Path, say: Callable[[str], None]) -> str:
        """Returns the report. folder: of the run. say: is given lines of progress.

        Raises:
            TrainingError: the run can't be read, or its game can't be analysed.
        """
        for name in self.penalty:
            require(name in PENALTIES, "penalty", name, ", ".join(PENALTIES), "set --penalty")
        require(1 <= self.num <= 20, "num", self.num, "1 .. 20", "set --num")
        idle = self.trials is None and (self.from_start or self.draws != trying.NUM_DRAWS)
        given = "from_start" if self.from_start else "draws"
        allowed = "with --trials alone"
        require(not idle, given, getattr(self, given), allowed, "set --trials, or leave it out")
        game = RunGame.open(folder, self.checkpoint)
        if self.trials is not None:
            trying.check(game, self.trials, self.draws, from_start=self.from_start)
        weights = {term.name: term.weight for term in game.terms if term.name in PENALTIES}
        names = self.penalty or tuple(weights) or (_DEFAULT,)
        for name in names:
            game.require_penalty(name)
        found, lacking = self._laws(game, names, weights, say)
        tried = {}
        if self.trials is not None:
            for name in names:
                tried[name] = trying.run(
                    game,
                    name,
                    kimg=self.trials,
                    num_draws=self.draws,
                    from_start=self.from_start,
                    say=say,
                )
        result = {
            "run": str(folder),
            "checkpoint": game.checkpoint.name,
            "cur_nimg": game.state.cur_nimg,
            "penalties": _record(found),
            "trials": {name: trying.record(each) for name, each in tried.items()},
        }
        keep(folder, "gamma", game.state.cur_nimg, result, say)
        if self.json:
            return as_json(result)
        head = (
            f"{game.config.recipe}, {game.checkpoint.name}: {game.state.cur_nimg / 1000:.3f} kimg"
        )
        lines = [head, *(line for item in found.items() for line in _text(*item))]
        lines.append(CAVEAT if found else f"No Jacobian, so nothing of damping: {lacking}")
        for name, each in tried.items():
            lines += trying.text(name, each, found.get(name))
        return "\n".join([*lines, *([CAVEAT_OF_TRIALS] if tried else [])])

    def _laws(
        self,
        game: RunGame,
        names: Sequence[str],
        weights: Mapping[str, float],
        say: Callable[[str], None],
    ) -> tuple[dict[str, Damping], str]:
        """The damping by each penalty; with trials, the reason where the game has no Jacobian."""
        found = {}
        try:
            _require_linear(game)
            batches = opened(game, held(self.num), batch_size=self.batch_size)
            difference_on(game, batches)
            progress = Progress(say)
            for name in names:
                at = progress.counted(f"{name}: weights solved", rounds_at(game, batches[0], name))
                found[name] = damping(at, weights.get(name, 0.0), num=self.num)
        except StabilityError as error:
            if self.trials is None:
                raise
            return {}, str(error)
        return found, ""


def _require_linear(game: RunGame) -> None:
    try:
        _ = game.optimizers
    except ConfigError as error:  # trials need no linear form
        raise StabilityError(str(error)) from error


def _text(name: str, found: Damping) -> list[str]:
    lines = [
        "",
        f"{name}, weight {found.weight:g}",
        f"  {'lambda, a round':26}{'d lambda / d weight':26}{'damping':>8}{'of G':>7}"
        "  critical weight",
    ]
    for mode in found.modes:
        critical = mode.critical(found.weight) if mode.turns else None
        lines.append(
            f"  {_number(mode.value):26}{_number(mode.slope):26}{mode.damping_ratio:>8.3f}"
            f"{mode.share_G:>7.2f}  {'-' if critical is None else f'{critical:.4g}'}"
        )
    if not found.modes:
        lines.append("  none of the leading eigenvalues is resolved; set a larger --num")
    if found.advice is None:
        lines.append(
            "  No resolved leading mode both turns and is damped by this penalty: no advice."
        )
        return lines
    if found.keeps:
        lines.append(
            f"  Advice: keep {name}={found.advice:g}: what turns is damped to {DAMPED:g} or more, "
            "and more damping would only slow."
        )
        return lines
    lines.append(f"  Advice: {name}={found.advice:.3g}, critical damping of the least damped mode.")
    for weight, value, abscissa in found.solved:
        lines.append(
            f"  solved at {weight:.4g}: {_number(value)}, largest real part {abscissa:.4g}"
        )
    return lines


def _record(found: dict[str, Damping]) -> dict[str, Any]:
    return {
        name: {
            "weight": each.weight,
            "keeps": each.keeps,
            "advice": each.advice,
            "modes": [
                {
                    "lambda": [mode.value.real, mode.value.imag],
                    "slope": [mode.slope.real, mode.slope.imag],
                    "damping_ratio": mode.damping_ratio,
                    "share_G": mode.share_G,
                    "critical": mode.critical(each.weight) if mode.turns else None,
                }
                for mode in each.modes
            ],
            "solved": [
                {"weight": weight, "lambda": [value.real, value.imag], "abscissa": abscissa}
                for weight, value, abscissa in each.solved
            ],
        }
        for name, each in found.items()
    }


def _number(value: complex) -> str:
    return f"{value.real:.5g} {value.imag:+.5g}i"
