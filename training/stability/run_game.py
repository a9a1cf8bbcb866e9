"""A run's game where one of its checkpoints stands: data, networks, optimisers, in float64.

Everything is held that training draws anew: a batch's images, latents, masks and noise. Penalties
that act at every k-th step count at every step with a k-th of their strength, their mean. The
checkpoint is read, never written.
"""

import copy
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from training.cli.command import resumed
from training.config.training import TrainingConfig
from training.data import Batches, ImageSet, load
from training.engine.checkpoint import (
    Checkpoint,
    Checkpoints,
    UnreadableError,
    read,
    restore,
)
from training.engine.distributed import World
from training.engine.round_batches import RoundBatches
from training.engine.state import PlayerState, State
from training.engine.stepper import game_of
from training.errors import CheckpointError, StabilityError, require
from training.game.forward import Batch
from training.game.regularizers import Term
from training.optim.constraints import CONSTRAINTS
from training.optim.optimizers import OptimizerConfig
from training.optim.schedules import Timetable
from training.optim.unrolled import Adam, Steps, descent
from training.stability.field import VectorField, as_analysed, loss_on
from training.stability.rounds.frozen_optimizers import FrozenOptimizer, frozen
from training.stability.rounds.round_operator import Jacobian, RoundOperator

_CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class RunGame:
    """The game of a run at a checkpoint."""

    folder: Path
    """The run's folder."""
    config: TrainingConfig
    """Its configuration, of one process that computes a batch whole."""
    image_set: ImageSet
    """Its data."""
    state: State
    """Both players with their optimisers, float32 as they were trained."""
    checkpoint: Path
    """The file that they are from."""

    @classmethod
    def open(cls, run: Path, checkpoint: str | None = None) -> "RunGame":
        """Reads a run's data and a checkpoint of it.

        Args:
            run: the run's folder.
            checkpoint: name or path of a file; the newest of the run if None.

        Raises:
            CheckpointError: the folder holds no run, no checkpoint, or another game's.
            DataError: the data can't be read.
        """
        if not (run / "config.json").is_file():
            raise CheckpointError(
                f"RUN is {str(run)!r}, allowed: the folder of a run, which holds a config.json; "
                "name one under runs/"
            )
        config, found = resumed(run, None).config, _checkpoint(run, checkpoint)
        image_set = load(config.data)
        try:
            return cls.standing(run, config, image_set, found)
        except (CheckpointError, RuntimeError, LookupError, TypeError, AttributeError) as error:
            reason = (str(error) or type(error).__name__).split(";")[0].splitlines()[0]
            raise CheckpointError(
                f"checkpoint is {str(found.path)!r}, of another game than {run}: {reason}; choose "
                f"one of {_names(run)}"
            ) from error

    @classmethod
    def standing(
        cls, run: Path, config: TrainingConfig, image_set: ImageSet, at: Checkpoint
    ) -> "RunGame":
        """Returns the game at a checkpoint, on the CPU, whatever the device of the data.

        The instrument computes in float64, in part with SciPy.

        Args:
            run: the run's folder.
            config: of its training.
            image_set: its data, on any device.
            at: the checkpoint, of this training.

        Raises:
            CheckpointError: the checkpoint is of other networks or data.
        """
        config, image_set = replace(config, accumulate=1), image_set.to(_CPU)
        state = State.fresh(config, image_set.shape, _CPU)
        restore(at, state, config, image_set.fingerprint)
        state.grow(config.total_nimg)
        return cls(folder=run, config=config, image_set=image_set, state=state, checkpoint=at.path)

    @property
    def timetable(self) -> Timetable:
        """The schedules of the training."""
        return Timetable(self.config.schedules)

    @property
    def terms(self) -> tuple[Term, ...]:
        """The regularisers with the weights that they have now, acting at every step."""
        cur_nimg = self.state.cur_nimg
        return tuple(
            replace(term, weight=self.timetable.at(term.name, term.weight, cur_nimg), interval=1)
            for term in self.config.regularizers
        )

    @property
    def notes(self) -> list[str]:
        """What the analysis holds or leaves out of this game, in sentences."""
        config, found = self.config, []
        if any(CONSTRAINTS[term.name].install for term in self._constraints):
            found.append("spectral norm: the vectors of its power iteration are held")
        if any(term.interval > 1 for term in config.regularizers):
            found.append("lazy penalties count at every step with their mean strength")
        if config.compute.precision != "fp32":
            found.append(f"computed in float64; trained in {config.compute.precision}")
        if config.augment.policy or any(t.name == "instance-noise" for t in config.regularizers):
            found.append("augmentations and noise are held as drawn once")
        return found

    def require_differentiable(self) -> None:
        """Raises StabilityError for a game whose round has no derivative."""
        for term in self._constraints:
            if CONSTRAINTS[term.name].install is None:
                raise StabilityError(
                    f"regularizers has {term}: its projection after each step has no derivative at "
                    "its bounds, so the round has no Jacobian; `exponent` measures such a game"
                )

    def require_penalty(self, name: str) -> None:
        """Raises ConfigError for a penalty that this game can't have, beside its others."""
        if all(term.name != name for term in self.config.regularizers):
            terms = (*self.config.regularizers, Term(name=name, weight=0.0))
            replace(self.config, regularizers=terms)  # its rules check themselves

    def size_up_to(self, most: int) -> int:
        """The largest batch of whole packs, of the training's size, the data's and `most` at most.

        Two packs at least, whether there are so many images or not.
        """
        num = self.config.packing
        size = min(self.config.batch_size, most, len(self.image_set))
        return max(size // num, 2) * num

    def batches(self, num: int, size: int | None = None) -> Iterator[Batch]:
        """Yields disjoint batches, float64. size: the training's if None.

        Raises:
            ConfigError: the data has fewer images.
        """
        size = self.config.batch_size if size is None else size
        total = len(self.image_set)
        require(size >= 2, "batch_size", size, "2 or more", "set --batch-size")
        pack = self.config.packing
        packs = f"a multiple of packing={pack}, 2 packs or more"
        fits = size % pack == 0 and size // pack >= 2
        require(fits, "batch_size", size, packs, "set --batch-size")
        at_most = f"at most {total}, the images of {self.image_set.name}"
        require(size <= total, "batch_size", size, at_most, "set a smaller --batch-size")
        fitting = f"at most {total // size}: {total} images make so many batches of {size}"
        require(1 <= num <= total // size, "batches", num, fitting, "set --batches or --batch-size")
        config = replace(self.config, batch_size=size, steps_D=1)
        source = Batches(self.image_set, batch_size=size, seed=config.seed)
        # From the start of an epoch on, or batches would meet an image twice.
        first = -(-self.state.cur_nimg // total) * total
        for index in range(num):
            there = replace(self.state, cur_nimg=first + index * size)
            (round_batch,) = RoundBatches(config, source, World()).of_D(there)
            (part,) = round_batch.micro_batches
            yield replace(
                part.batch,
                real_img=part.batch.real_img.double(),
                z=part.batch.z.double(),
                augment_p=self.state.augment_p.double(),
                cur_nimg=self.state.cur_nimg,
            )

    def field(self, batch: Batch, weights: Mapping[str, float] | None = None) -> VectorField:
        """Returns the field on a batch.

        weights: of penalties by name, instead of those they have; others are added.
        """
        given = dict(weights or {})
        terms = tuple(
            replace(term, weight=given.pop(term.name, term.weight)) for term in self.terms
        )
        terms += tuple(Term(name=name, weight=weight) for name, weight in given.items())
        # The terms have their present weights already.
        names = {term.name for term in terms}
        rest = tuple(each for each in self.config.schedules if each.target not in names)
        config = replace(self.config, schedules=rest)
        G, D = as_analysed(self.state.G.network), as_analysed(self.state.D.network)
        loss = loss_on(
            game_of(config, D, terms),
            batch,
            unrolled_steps=config.unrolled_steps,
            unrolled_move=self._unrolled_move,
        )
        return VectorField(loss, G, D)

    def averaged_G(self) -> nn.Module:
        """Returns a copy of the averaged generator in float64, in evaluation mode."""
        return copy.deepcopy(self.state.G_ema).double().eval()

    def averaged_theta(self) -> Tensor:
        """Returns the averaged weights of those that G trains, one vector, float64."""
        named = dict(self.state.G_ema.named_parameters())
        trained = self.state.G.network.named_parameters()
        return torch.cat(
            [named[n].detach().double().flatten() for n, each in trained if each.requires_grad]
        )

    @property
    def optimizers(self) -> dict[str, FrozenOptimizer]:
        """Both players' optimisers as they stand, with the rates that schedules have come to."""
        return {name: frozen(player, self.rates[name]) for name, player in self._players.items()}

    @property
    def rates(self) -> dict[str, OptimizerConfig]:
        """Both players' options, with what schedules have come to."""
        timetable, cur_nimg = self.timetable, self.state.cur_nimg
        return {n: each.rates(timetable, n, cur_nimg) for n, each in self._players.items()}

    @property
    def _players(self) -> dict[str, PlayerState]:
        return {"G": self.state.G, "D": self.state.D}

    def round(self, at: Jacobian) -> RoundOperator:
        """Returns the operator of one round of the game linearised there."""
        config = self.config
        return RoundOperator(
            jacobian=at,
            optimizers=self.optimizers,
            update=config.update,
            steps_D=config.steps_D,
            steps_G=config.steps_G,
            lookahead_steps=config.lookahead_steps,
            lookahead_alpha=config.lookahead_alpha,
            extrapolation=config.extrapolation,
        )

    def _unrolled_move(self) -> Steps:
        """D's steps that G looks ahead by, from where D's optimiser stands."""
        if self.config.unrolled_adam:
            return Adam(self.state.D.optimizer, self.config.unrolled_lr)
        return descent(self.config.unrolled_lr)

    @property
    def _constraints(self) -> list[Term]:
        return [term for term in self.config.regularizers if term.name in CONSTRAINTS]


def _checkpoint(run: Path, name: str | None) -> Checkpoint:
    """Reads the checkpoint that is meant: a file's name in the run, or its path."""
    stored = Checkpoints(run / "checkpoints").paths()
    if not stored:
        raise CheckpointError(
            f"RUN is {str(run)!r}: it holds no checkpoint; it ended before its first tick, or they "
            "were deleted: train it again, with a smaller --tick-kimg"
        )
    name = stored[-1].name if name is None else name
    for path in (run / "checkpoints" / name, Path(name)):
        if os.path.isfile(path):  # False for words that can be no path
            try:
                return read(path)
            except UnreadableError as error:
                raise CheckpointError(
                    f"checkpoint is {name!r}: {error.reason}; choose one of "
                    f"{_names(run, without=path)}"
                ) from error
    raise CheckpointError(f"checkpoint is {name!r}, allowed: {_names(run)}, or a file's path")


def _names(run: Path, *, without: Path | None = None) -> str:
    """The run's checkpoints, for --checkpoint; without: one that is none."""
    paths = Checkpoints(run / "checkpoints").paths()
    return ", ".join(path.name for path in paths if path != without) or "none, as it has no other"
