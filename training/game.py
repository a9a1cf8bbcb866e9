"""The game: each player's loss, a pure function of (G, D, batch).

A player is any callable, so the same code trains modules and, with their parameters bound by
`torch.func.functional_call`, lets an analysis differentiate one player's gradient by the other's
parameters. All randomness is in the batch: its key seeds whatever the networks draw (dropout).
Knows no optimiser, no device and no name of a variant.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from training.config import Term
from training.objectives import OBJECTIVES
from training.play import Batch, Play, Player, Side, play
from training.randomness import reseed
from training.regularizers import PENALTIES, Penalty


@dataclass(frozen=True, kw_only=True)
class Losses:
    """A player's loss, term by term."""

    terms: dict[str, Tensor]
    """Weighted scalars by name; the objective's own is called `adversarial`."""
    play: Play
    """What they were computed from."""

    @property
    def total(self) -> Tensor:
        """What the player minimises."""
        return torch.stack(list(self.terms.values())).sum()


class Game:
    """An objective with penalties, each by its name in the registries."""

    def __init__(self, objective: str, terms: tuple[Term, ...], *, joint: bool) -> None:
        """joint: D judges real and fake images in one pass; needs `rows_are_independent(D)`."""
        self.objective = OBJECTIVES[objective]
        self.penalties = tuple((term, PENALTIES[term.name]) for term in terms)
        self.joint = joint

    def loss_D(self, G: Player, D: Player, batch: Batch) -> Losses:
        """What D minimises, differentiable by the parameters of both."""
        return self.judge_D(D, batch, self.generate(G, batch))

    def loss_G(self, G: Player, D: Player, batch: Batch) -> Losses:
        """What G minimises, differentiable by the parameters of both."""
        return self.judge_G(D, batch, self.generate(G, batch))

    def generate(self, G: Player, batch: Batch) -> Tensor:
        """G's images for the batch, [N, C, H, W] float32 in [-1, 1]."""
        reseed(batch.key, batch.z.device)
        return G(batch.z, batch.label)

    def judge_D(self, D: Player, batch: Batch, fake_img: Tensor) -> Losses:
        """loss_D for given images of G, so that a loop can make them once for both players."""
        due = self._due("D", batch.step)
        reseed(batch.key + 1, batch.z.device)
        seen = play(D, batch, fake_img, gradients=_sides(due), joint=self.joint)
        assert seen.real_logits is not None
        adversarial = self.objective.loss_D(seen.real_logits, seen.fake_logits)
        return Losses(terms=_terms(adversarial, due, seen), play=seen)

    def judge_G(self, D: Player, batch: Batch, fake_img: Tensor) -> Losses:
        """loss_G for given images of G."""
        due = self._due("G", batch.step)
        reseed(batch.key + 2, batch.z.device)
        paired = self.objective.paired
        gradients = _sides(due)
        judge_real = paired or "real" in gradients
        seen = play(
            D, batch, fake_img, gradients=gradients, judge_real=judge_real, joint=self.joint
        )
        adversarial = self.objective.loss_G(seen.fake_logits, seen.real_logits if paired else None)
        return Losses(terms=_terms(adversarial, due, seen), play=seen)

    def _due(self, player: str, step: int) -> list[tuple[Term, Penalty]]:
        return [
            (term, penalty)
            for term, penalty in self.penalties
            if penalty.player == player and step % term.interval == 0
        ]


def _sides(due: list[tuple[Term, Penalty]]) -> frozenset[Side]:
    return frozenset[Side]().union(*(penalty.gradients for _, penalty in due))


def _terms(adversarial: Tensor, due: list[tuple[Term, Penalty]], seen: Play) -> dict[str, Tensor]:
    """A lazy term counts for the steps that it skips (Karras et al. 2020, sec. 3.1)."""
    penalties = {
        term.name: term.weight * term.interval * penalty.value(seen) for term, penalty in due
    }
    return {"adversarial": adversarial, **penalties}
