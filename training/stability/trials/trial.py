"""One trial: a copy of a run's game, played at another weight of a penalty, and what came of it.

It goes on from a checkpoint, or begins at new weights: which weight to go on with, and which to
begin with, have different answers.

What is the checkpoint's where it goes on: both players, their optimisers' moments and what else a
round remembers. What is anew: the draws, a function of the trial's number, alike at all weights;
the schedules, which run through once within the trial, since a run that has ended has rates that
move nothing; and the average of G, which begins at G's own weights and forgets them within the
trial. The run's state is copied and stays what it is.
"""

import time
from dataclasses import dataclass, replace

from training.config.training import TrainingConfig
from training.data import Batches
from training.engine.state import State
from training.engine.stepper import Stepper
from training.evaluation.looks import Figures
from training.game.regularizers import Term
from training.optim.schedules import Schedule
from training.stability.copies import copied
from training.stability.run_game import RunGame
from training.stability.trials.quality import Judge

HALF_LIVES = 5
"""Of the average within a trial, at least: of where it began a 32nd is left."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What came of a trial."""

    weight: float
    draw: int
    """Number of its draws; trials of one number have the same batches and latents."""
    quality: float
    """As `quality.Judge` has it, the more the better; WORST where it diverged."""
    figures: Figures
    """Figures of the averaged generator by name; empty where it diverged."""
    speed: float | None
    """|v| on one batch where the trial ended; None where it diverged."""
    cpu_s: float
    """What it took, its figures among it."""


@dataclass(frozen=True, kw_only=True)
class _Restarted(Schedule):
    """A schedule that begins where a trial does."""

    since_nimg: int

    def at(self, start: float, cur_nimg: int) -> float:
        return super().at(start, cur_nimg - self.since_nimg)


def play(
    game: RunGame,
    judge: Judge,
    name: str,
    weight: float,
    draw: int,
    *,
    kimg: float,
    from_start: bool = False,
) -> Trial:
    """Plays one trial and measures what came of it.

    Args:
        game: where the run stands.
        judge: of the run's data.
        name: of the penalty.
        weight: of the penalty, constant through the trial.
        draw: number of the draws, from 0.
        kimg: thousands of images to show.
        from_start: begin at new weights of both players, which the draw decides.

    Raises:
        ConfigError: the run's game allows no such penalty or weight.
    """
    start = time.process_time()
    since_nimg = 0 if from_start else game.state.cur_nimg
    config = config_of(game.config, name, weight, draw, kimg=kimg, since_nimg=since_nimg)
    device = game.image_set.device
    if from_start:
        state = State.fresh(config, game.image_set.shape, device)
    else:
        state = copied(config, game.state, device)
    source = Batches(game.image_set, batch_size=config.batch_size, seed=config.seed)
    stepper = Stepper(config, state, source)
    end_nimg = since_nimg + round(kimg * 1000)
    finite = True
    while state.cur_nimg < end_nimg and finite:
        stepper.step()
        finite = stepper.non_finite() is None
    figures = judge.look(state.G_ema.eval()) if finite else {}
    return Trial(
        weight=weight,
        draw=draw,
        quality=judge.quality(figures),
        figures=figures,
        speed=_speed(replace(game, config=config, state=state)) if finite else None,
        cpu_s=time.process_time() - start,
    )


def config_of(
    config: TrainingConfig, name: str, weight: float, draw: int, *, kimg: float, since_nimg: int
) -> TrainingConfig:
    """Returns the configuration of a trial.

    config: of the run. since_nimg: images shown where it begins. The rest is as for `play`.
    """
    terms = tuple(
        replace(term, weight=weight) if term.name == name else term for term in config.regularizers
    )
    if all(term.name != name for term in terms):
        terms += (Term(name=name, weight=weight),)
    half_life = kimg / HALF_LIVES
    followed = [each for each in config.schedules if each.target not in (name, "ema_kimg")]
    if config.average == "ema" and not any(each.target == "ema_kimg" for each in config.schedules):
        half_life = min(half_life, config.ema_kimg)
    return replace(
        config,
        regularizers=terms,
        schedules=tuple(
            _restarted(each, kimg / config.total_kimg, since_nimg) for each in followed
        ),
        average="ema",
        ema_kimg=half_life,
        seed=(config.seed + draw + 1) % 2**63,
    )


def _restarted(schedule: Schedule, share: float, since_nimg: int) -> Schedule:
    """The schedule shrunk to a trial. share: its length, of the whole training's."""
    return _Restarted(
        target=schedule.target,
        end=schedule.end,
        shape=schedule.shape,
        kimg=schedule.kimg * share,
        since_nimg=since_nimg,
    )


def _speed(game: RunGame) -> float:
    (batch,) = game.batches(1, game.size_up_to(game.config.batch_size))
    field = game.field(batch)
    return float(field(field.place).norm())
