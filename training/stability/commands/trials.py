"""`gamma RUN --trials KIMG`: the trials of a run's weights, with progress, as text and as JSON."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from training.errors import StabilityError, require
from training.stability.damping import Damping
from training.stability.progress import INTERVAL_S
from training.stability.run_game import RunGame
from training.stability.trials.choice import Choice, choose, qualities
from training.stability.trials.quality import POINTS, WORST, Judge
from training.stability.trials.race import Race
from training.stability.trials.trial import Trial, play

LEAST_ROUNDS = 20
NUM_DRAWS = 3


@dataclass(frozen=True, kw_only=True)
class Trials:
    """What the trials of one penalty's weights gave."""

    kimg: float
    """Length of a trial."""
    from_start: bool
    """True where they began at new weights, not at the checkpoint."""
    figure: str
    """What quality is, as `quality.Judge` has it."""
    present: float
    """The weight that the run has."""
    trials: tuple[Trial, ...]
    choice: Choice | None
    """None where every weight diverged."""

    @property
    def since(self) -> str:
        """Where they began, in words."""
        return "new weights" if self.from_start else "the checkpoint"

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all trials."""
        return sum(trial.cpu_s for trial in self.trials)


def check(game: RunGame, kimg: float, num_draws: int, *, from_start: bool) -> None:
    """Refuses trials of a length or number that says nothing.

    Raises:
        ConfigError: they are shorter than LEAST_ROUNDS rounds, longer than the run, or played once.
        StabilityError: the run is shorter than LEAST_ROUNDS rounds, or the game's networks grow.
    """
    config = game.config
    least, most = LEAST_ROUNDS * config.round_nimg / 1000, config.total_kimg
    if least > most:
        raise StabilityError(
            f"the run is shorter than {LEAST_ROUNDS} rounds ({most:g} kimg, of {least:g}), and no "
            "trial within its length says anything; leave --trials out, or train longer"
        )
    allowed = f"{least:g} .. {most:g}: {LEAST_ROUNDS} rounds to the run's whole length in kimg"
    remedy = "set --trials to a tenth of the run or more; what is as long as it, train"
    require(math.isfinite(kimg) and least <= kimg <= most, "trials", kimg, allowed, remedy)
    allowed = "2 .. 100, as one draw has no error"
    require(2 <= num_draws <= 100, "draws", num_draws, allowed, "set --draws 3")
    networks = (game.state.G.network, game.state.D.network)
    grows = any(hasattr(type(network), "set_progress") for network in networks)
    if grows and not from_start and game.state.cur_nimg < config.total_nimg:
        raise StabilityError(
            "the networks of this run are still growing, and trials of one stage say nothing of "
            "the next; leave --trials out, or take the run's last checkpoint"
        )


def run(
    game: RunGame,
    name: str,
    *,
    kimg: float,
    num_draws: int,
    from_start: bool,
    say: Callable[[str], None],
) -> Trials:
    """Plays the trials of a penalty's weights on one thread.

    Args:
        game: where the run stands; it stays there.
        name: of the penalty.
        kimg: length of a trial.
        num_draws: draws that each weight is played on.
        from_start: trials begin at new weights, not at the run's.
        say: is given lines of progress.

    Raises:
        TrainingError: the game allows no such penalty, or its images can't be judged.
    """
    judge = Judge(game.image_set, game.config.network.z_dim)
    present = next((term.weight for term in game.terms if term.name == name), 0.0)
    race = Race(
        play=lambda weight, draw: play(
            game, judge, name, weight, draw, kimg=kimg, from_start=from_start
        ),
        present=present,
        num_draws=num_draws,
    )
    start = last = time.monotonic()
    num_threads = torch.get_num_threads()
    # With two, results would depend on the machine.
    torch.set_num_threads(1)
    try:
        for num, trial in enumerate(race.run(), 1):
            if (now := time.monotonic()) - last >= INTERVAL_S:
                last = now
                left_s = (now - start) / num * race.num_left
                say(
                    f"{name}={trial.weight:g}, draw {trial.draw + 1} of {num_draws}: trial {num} "
                    f"ended, {now - start:.0f} s, at most about {left_s:.0f} s left"
                )
    finally:
        torch.set_num_threads(num_threads)
    return Trials(
        kimg=kimg,
        from_start=from_start,
        figure=judge.figure,
        present=present,
        trials=tuple(race.trials),
        choice=choose(race.trials, present),
    )


def text(name: str, found: Trials, law: Damping | None) -> list[str]:
    """Lines about the trials. law: what the Jacobian says, for the damping; None without one."""
    choice = found.choice
    lines = [
        "",
        f"{name}, trials of {found.kimg:g} kimg from {found.since} on",
        f"  {'weight':>10}{found.figure:>26}{'|v|':>10}{'damping':>9}  draws",
    ]
    for weight, each in sorted(qualities(found.trials).items()):
        own = [trial for trial in found.trials if trial.weight == weight]
        mean = mean_of(found, weight)
        quality = "diverged" if mean is None else f"{mean:.4g}"
        speeds = [trial.speed for trial in own if trial.speed is not None]
        speed = f"{np.mean(speeds):.3g}" if speeds else "-"
        ratio = None if law is None else law.ratio_at(weight)
        marks = _marks(weight, found)
        lines.append(
            f"  {weight:>10g}{quality:>26}{speed:>10}{'-' if ratio is None else f'{ratio:.2f}':>9}"
            f"  {len(each)}{marks}"
        )
    if choice is None:
        return [*lines, "  Every weight diverged: no advice."]
    lines.append(
        f"  Standard error {choice.error:.2g}; differences below {choice.margin:.2g} tell nothing. "
        "The damping is the checkpoint's, by its law."
    )
    return [*lines, *_verdict(name, found, choice), f"  It took {found.cpu_s:.0f} CPU seconds."]


def mean_of(found: Trials, weight: float) -> float | None:
    """Mean of the figure at a weight, as the figure is written; None where it diverged once."""
    each = qualities(found.trials)[weight]
    if min(each) == WORST:
        return None
    return float(np.mean(each)) * (1 if found.figure == POINTS else -1)


def _marks(weight: float, found: Trials) -> str:
    marks = []
    if weight == found.present:
        marks.append("present")
    if found.choice is not None and weight == found.choice.best:
        marks.append("best")
    elif found.choice is not None and weight in found.choice.alike:
        marks.append("as good")
    return f"  {', '.join(marks)}" if marks else ""


def _verdict(name: str, found: Trials, choice: Choice) -> list[str]:
    first, last = choice.alike[0], choice.alike[-1]
    if first == last:
        told = "the others are worse beyond the trials' error"
    else:
        told = f"{name}={first:g} to {last:g} can't be told apart from it"
    lines = [f"  Best {name}={choice.best:g}; {told}."]
    if found.present in choice.alike:
        lines.append("  The present weight is among them: no reason to change it was found.")
    lines.append(f"  Advice of the trials: {name}={choice.advice:g}.")
    return lines


def record(found: Trials) -> Mapping[str, Any]:
    """The trials as JSON types."""
    choice = found.choice
    return {
        "kimg": found.kimg,
        "from_start": found.from_start,
        "figure": found.figure,
        "present": found.present,
        "advice": None if choice is None else choice.advice,
        "best": None if choice is None else choice.best,
        "alike": [] if choice is None else list(choice.alike),
        "error": None if choice is None else choice.error,
        "margin": None if choice is None else choice.margin,
        "cpu_s": found.cpu_s,
        "weights": [
            {"weight": weight, "draws": len(each), "mean": mean_of(found, weight)}
            for weight, each in sorted(qualities(found.trials).items())
        ],
        "trials": [
            {
                "weight": trial.weight,
                "draw": trial.draw,
                "diverged": trial.quality == WORST,
                "figures": trial.figures,
                "speed": trial.speed,
                "cpu_s": trial.cpu_s,
            }
            for trial in found.trials
        ],
    }
