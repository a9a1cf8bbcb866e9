"""Updates: who moves when in a round of the game.

An update is a function of a `TrainStep` (`training.engine.stepper.Stepper`), which supplies
batches, computes a player's gradient and moves it. A new one is one more entry. This module knows
no loss and no optimiser.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from training.game.forward import Batch

Gradients = tuple[Tensor | None, ...]
"""One for each of a player's parameters; None for one that its loss doesn't depend on."""

Snapshot = list[Tensor]


@dataclass
class MicroBatch:
    """Some rows of a batch, and G's images for them."""

    batch: Batch
    fake_img: Tensor | None = None
    """Made when a loss first needs them; kept only where the whole batch is one part."""


Part = Literal["whole", "prompt", "lazy"]
"""Which terms of a player's loss a step is of: all that are due; the objective with the penalties
of every step; or the due penalties of longer intervals alone."""


@dataclass
class RoundBatch:
    """A batch as it is computed: whole, or in parts."""

    micro_batches: list[MicroBatch]
    for_G: bool = True
    """True where G's images are needed with their graph."""
    terms: Part = "whole"
    """The terms of the loss that it is for."""


class TrainStep(Protocol):
    """The operations that an update is written in."""

    def batches_D(self) -> Iterator[RoundBatch]:
        """Yields a batch for each step of D in the round; the last one's images serve G too."""
        ...

    def batches_G(self, last: RoundBatch) -> Iterator[RoundBatch]:
        """Yields a batch for each step of G in the round. last: D's last; G's first by default."""
        ...

    def again(self, round_batch: RoundBatch) -> RoundBatch:
        """Returns the same batch, with images of G as it is now."""
        ...

    def lazy(self, player: str, round_batch: RoundBatch) -> Iterator[RoundBatch]:
        """Yields a batch for a step of the player's lazy penalties alone, where one is due."""
        ...

    def gradients(self, player: str, round_batch: RoundBatch) -> Gradients:
        """Returns the gradient of the player's loss by its own parameters."""
        ...

    def move(self, player: str, gradients: Gradients) -> None:
        """Takes a step of the player's optimiser, and applies its constraints."""
        ...

    def ahead(self, player: str) -> AbstractContextManager[None]:
        """Lets the player stand further along its last move inside the block."""
        ...

    def snapshot(self) -> Snapshot:
        """Returns a copy of both players' parameters."""
        ...

    def restore(self, snapshot: Snapshot) -> None:
        """Writes the parameters back; the state of the optimisers stays."""
        ...


@dataclass(frozen=True, kw_only=True)
class Update:
    """An order of moves."""

    run_round: Callable[[TrainStep], None]
    """Plays one round."""
    paper: str
    """Where it is from."""
    looks_ahead: bool = False
    """True where gradients are taken ahead of where a player stands, along its last move."""
    takes_turns: bool = False
    """True where a player may have several steps in a round, as the other one waits."""


def alternating(step: TrainStep) -> None:
    """D moves, then G against the new D."""
    for round_batch in step.batches_D():
        step.move("D", step.gradients("D", round_batch))
        for lazy in step.lazy("D", round_batch):
            step.move("D", step.gradients("D", lazy))
    for batch_G in step.batches_G(round_batch):
        step.move("G", step.gradients("G", batch_G))
        for lazy in step.lazy("G", batch_G):
            step.move("G", step.gradients("G", lazy))


def discriminator_alone(step: TrainStep) -> None:
    """D takes its steps of a round, G stands: half of an alternating round, to look at it."""
    for round_batch in step.batches_D():
        step.move("D", step.gradients("D", round_batch))
        for lazy in step.lazy("D", round_batch):
            step.move("D", step.gradients("D", lazy))


def generator_alone(step: TrainStep) -> None:
    """G takes its steps of a round, D stands: the other half."""
    *_, round_batch = step.batches_D()
    for batch_G in step.batches_G(round_batch):
        step.move("G", step.gradients("G", batch_G))
        for lazy in step.lazy("G", batch_G):
            step.move("G", step.gradients("G", lazy))


def simultaneous(step: TrainStep) -> None:
    """Both move along the field of the point where both stand."""
    (round_batch,) = step.batches_D()
    # Both gradients before either player moves.
    both = [(player, step.gradients(player, round_batch)) for player in "DG"]
    for player, gradients in both:
        step.move(player, gradients)


def extragradient(step: TrainStep) -> None:
    """Both step along the field at a trial point, one step ahead, on the same batch."""
    (round_batch,) = step.batches_D()
    start = step.snapshot()
    both = [(player, step.gradients(player, round_batch)) for player in "DG"]
    for player, gradients in both:
        step.move(player, gradients)
    seen = step.again(round_batch)
    ahead = [(player, step.gradients(player, seen)) for player in "DG"]
    # The parameters go back, the optimisers' moments don't: they have seen both gradients.
    step.restore(start)
    for player, gradients in ahead:
        step.move(player, gradients)


def alternating_extrapolation(step: TrainStep) -> None:
    """D moves, then G, each against the other one as it would stand further along its last move."""
    (round_batch,) = step.batches_D()
    with step.ahead("G"):
        gradients = step.gradients("D", round_batch)
    step.move("D", gradients)
    seen = step.again(round_batch)  # G stands elsewhere than where it made the images
    with step.ahead("D"):
        gradients = step.gradients("G", seen)
    step.move("G", gradients)


UPDATES: dict[str, Update] = {
    "alternating": Update(
        run_round=alternating,
        takes_turns=True,
        paper="Goodfellow et al. 2014, arXiv:1406.2661, alg. 1",
    ),
    "simultaneous": Update(
        run_round=simultaneous, paper="Mescheder et al. 2017, arXiv:1705.10461, alg. 1"
    ),
    "extragradient": Update(
        run_round=extragradient,
        paper="Korpelevich 1976; Gidel et al. 2019, arXiv:1802.10551, alg. 4, with Adam: alg. 2",
    ),
    "alternating-extrapolation": Update(
        run_round=alternating_extrapolation,
        looks_ahead=True,
        paper="Lee et al. 2024, arXiv:2402.10475, Alex-GDA with gamma = delta = --extrapolation",
    ),
}
