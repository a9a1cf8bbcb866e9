"""The game: each player's loss, a pure function of (G, D, batch).

A player is any callable, so the same code trains modules and, with their parameters bound
(`training.play.Bound`), lets an analysis differentiate one player's gradient by the other's
parameters. All randomness is in the batch: its key seeds whatever the networks draw (dropout).
Knows no optimiser, no device and no name of a variant.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from models.networks.rows import only
from training.objectives import OBJECTIVES
from training.play import Batch, Movable, Play, Player, parameters_of, play
from training.randomness import reseed
from training.regularizers import PENALTIES, Penalty
from training.schedules import Timetable
from training.sites import SITES, Side, Site
from training.terms import Term
from training.views import VIEWS

_MOVE = {"D": 0, "G": 1}
_SIDE = {"real": 0, "fake": 1}
_FIRST_VIEW = 16  # seeds below are the networks' and the sites'

Lens = Callable[[Tensor, Side, Batch, int], Tensor]
"""(img, side, batch, seed) to what D sees of it."""


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
        first, *others = self.terms.values()
        return torch.stack([first, *others]).sum() if others else first


class Game:
    """An objective with penalties and views, each by its name in the registries."""

    def __init__(
        self,
        objective: str,
        terms: tuple[Term, ...],
        *,
        joint: bool,
        timetable: Timetable | None = None,
        lenses: tuple[Lens, ...] = (),
    ) -> None:
        """How the players are judged.

        Args:
            objective: entry of OBJECTIVES.
            terms: regularisers; constraints among them are not the game's.
            joint: D judges real and fake images in one pass; needs `rows_are_independent(D)`.
            timetable: of weights that change.
            lenses: what else stands between an image and D, nearest to the image first.
        """
        self.objective = OBJECTIVES[objective]
        self.penalties = tuple(
            (term, PENALTIES[term.name]) for term in terms if term.name in PENALTIES
        )
        self.joint = joint
        self._timetable = timetable or Timetable()
        self._lenses = (*lenses, *(self._lens(term) for term in terms if term.name in VIEWS))

    @property
    def has_field(self) -> bool:
        """True where D's loss depends on G's images also through a penalty's second derivative."""
        return any(penalty.field for _, penalty in self.penalties)

    @property
    def differentiates_twice(self) -> bool:
        """True where a loss holds a gradient of D."""
        return any(penalty.field or penalty.gradients for _, penalty in self.penalties)

    def loss_D(self, G: Player, D: Player, batch: Batch) -> Losses:
        """What D minimises, differentiable by the parameters of both."""
        return self.judge_D(G, D, batch, self.generate(G, batch))

    def loss_G(self, G: Player, D: Player, batch: Batch) -> Losses:
        """What G minimises, differentiable by the parameters of both."""
        return self.judge_G(G, D, batch, self.generate(G, batch))

    def generate(self, G: Player, batch: Batch) -> Tensor:
        """G's images for the batch, [N, C, H, W] float32 in [-1, 1]."""
        reseed(batch.key, batch.z.device)
        with only(batch.rows):
            img: Tensor = G(batch.z, batch.label)
        return img.float() if img.dtype == torch.bfloat16 else img

    def judge_D(self, G: Player, D: Player, batch: Batch, fake_img: Tensor) -> Losses:
        """loss_D for given images of G, so that a loop can make them once for both players."""
        with only(batch.rows):
            return self._judge("D", G, D, batch, fake_img)

    def judge_G(self, G: Player, D: Player, batch: Batch, fake_img: Tensor) -> Losses:
        """loss_G for given images of G."""
        with only(batch.rows):
            return self._judge("G", G, D, batch, fake_img)

    def unrolled(
        self, G: Player, D: Movable, batch: Batch, fake_img: Tensor, *, steps: int, lr: float
    ) -> Movable:
        """D after some steps of gradient descent, a function of both players' parameters.

        Source: Metz et al. 2017, arXiv:1611.02163, eq. 6 to 8.
        """
        for _ in range(steps):
            loss = self.judge_D(G, D, batch, fake_img).total
            gradients = torch.autograd.grad(
                loss, D.parameters(), create_graph=True, materialize_grads=True
            )
            D = D.moved([-lr * gradient for gradient in gradients])
        return D

    def _judge(self, player: str, G: Player, D: Player, batch: Batch, fake_img: Tensor) -> Losses:
        due = self._due(player, batch)
        reseed(batch.key + 1 + _MOVE[player], batch.z.device)
        paired = self.objective.paired
        gradients = _sites(due)
        features = any(penalty.features for _, penalty in due)
        field = any(penalty.field for _, penalty in due)
        judge_real = player == "D" or paired or features or field or "real" in gradients
        seen = play(
            D,
            batch,
            self._seen(fake_img, "fake", player, batch),
            G=G,
            real_img=self._seen(batch.real_img, "real", player, batch) if judge_real else None,
            whole_real=self._whole_real(player, batch, gradients),
            gradients=gradients,
            features=features,
            judge_real=judge_real,
            joint=self.joint,
        )
        seen = replace(
            seen,
            field=self._field(G, seen) if field else (),
            beside_real=lambda img: self._seen(img, "fake", player, batch, drawn_as="real"),
        )
        adversarial = self._adversarial(player, seen)
        return Losses(terms=self._terms(adversarial, due, seen), play=seen)

    def _adversarial(self, player: str, seen: Play) -> Tensor:
        real_logits, fake_logits = seen.real_logits, seen.fake_logits
        if player == "G":
            return self.objective.loss_G(
                fake_logits, real_logits if self.objective.paired else None
            )
        assert real_logits is not None
        return self.objective.loss_D(real_logits, fake_logits)

    def _field(self, G: Player, seen: Play) -> tuple[Tensor, ...]:
        """Each player's gradient of its own objective, differentiable by both's parameters."""
        return tuple(
            gradient
            for player, mover in (("G", G), ("D", seen.D))
            for gradient in torch.autograd.grad(
                self._adversarial(player, seen),
                parameters_of(mover),
                create_graph=True,
                materialize_grads=True,
            )
        )

    def _seen(
        self, img: Tensor, side: Side, player: str, batch: Batch, *, drawn_as: Side | None = None
    ) -> Tensor:
        """The image through every lens, each with randomness of its own, or of another side."""
        for index, lens in enumerate(self._lenses):
            offset = (index * len(_MOVE) + _MOVE[player]) * len(_SIDE) + _SIDE[drawn_as or side]
            img = lens(img, side, batch, batch.key + _FIRST_VIEW + offset)
        return img

    def _whole_real(self, player: str, batch: Batch, gradients: Collection[Site]) -> Tensor | None:
        """For sites, what D sees of a whole batch's real images, where this is a part of one."""
        if batch.whole_img is None or SITES.keys().isdisjoint(gradients):
            return None
        with only(None):
            return self._seen(batch.whole_img, "real", player, batch)

    def _lens(self, term: Term) -> Lens:
        view = VIEWS[term.name].view

        def lens(img: Tensor, side: Side, batch: Batch, seed: int) -> Tensor:
            weight = self._timetable.at(term.name, term.weight, batch.cur_nimg)
            return view(img, weight, seed) if weight > 0 else img

        return lens

    def _due(self, player: str, batch: Batch) -> list[tuple[Term, Penalty]]:
        step = batch.step_D if player == "D" else batch.step_G
        return [
            (term, penalty)
            for term, penalty in self.penalties
            if penalty.player in (player, "both") and step % term.interval == 0
        ]

    def _terms(
        self, adversarial: Tensor, due: list[tuple[Term, Penalty]], seen: Play
    ) -> dict[str, Tensor]:
        """A lazy term counts for the steps that it skips (Karras et al. 2020, sec. 3.1)."""
        terms = {"adversarial": adversarial}
        for term, penalty in due:
            weight = self._timetable.at(term.name, term.weight, seen.batch.cur_nimg)
            terms[term.name] = weight * term.interval * penalty.value(seen)
        return terms


def _sites(due: list[tuple[Term, Penalty]]) -> frozenset[Site]:
    return frozenset[Site]().union(*(penalty.gradients for _, penalty in due))
