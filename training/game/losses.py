"""The game: each player's loss, a pure function of (G, D, batch).

A player is any callable, so the same code trains modules and, with their parameters bound
(`training.game.forward.Bound`), lets an analysis differentiate one player's gradient by the other's
parameters. All randomness is in the batch: its key seeds whatever the networks draw (dropout).
This module knows no optimiser, no device and no name of a variant.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from models.networks.row_rng import only
from training.game.forward import Batch, Forward, Movable, Player, parameters_of, run_discriminator
from training.game.objectives import OBJECTIVES
from training.game.penalties import PENALTIES, Penalty
from training.game.penalty_points import PENALTY_POINTS, SIDES, Point
from training.game.regularizers import Term
from training.game.updates import Part
from training.optim.schedules import Timetable
from training.optim.unrolled import Steps
from training.randomness import reseed
from training.transforms.input_noise import INPUT_NOISES

PLAYERS = ("D", "G")

# What is added to a batch's key gives the seeds of its draws. Those below 16 are the networks' (0
# for images, 1 and 2 for the losses of D and G) and the penalty points' (3).
_SIDE_SEEDS = 16  # of the transforms of real and generated images
_POINT_SEEDS = 1 << 12  # of the transforms of penalty points

Measurement = Callable[[Tensor, int], Tensor]
"""(img, seed) to the image as it would have been measured: damaged as the data was."""

ImageTransform = Callable[[Tensor, Batch, int], Tensor]
"""(img, batch, seed) to the image that D sees instead: augmented, noisy."""


@dataclass(frozen=True, kw_only=True)
class Losses:
    """A player's loss, term by term."""

    terms: dict[str, Tensor]
    """Weighted scalars by name; the objective's own is called `adversarial`."""
    forward: Forward
    """The pass through D that they were computed from."""

    @property
    def total(self) -> Tensor:
        """The sum of the terms, which the player minimises."""
        first, *others = self.terms.values()
        return torch.stack([first, *others]).sum() if others else first


class Game:
    """An objective with penalties and image transforms.

    Between an image and D stand, in this order:

    0. The coarseness of the present stage, for real images alone: G grows, and its images are mixed
       with those of the stage before (`models.networks.Fading`).
    1. The measurement, for images of G alone: the data was damaged before training. It belongs to
       the generator's side (AmbientGAN, Bora et al. 2018, sec. 3): D tells measured images apart,
       so penalty points lie among measured images and gradients are by measured images.
    2. Augmentation and input noise, for real and generated images alike. They belong to D: it is
       D(T(x)) that is differentiated by x, as in StyleGAN2-ADA and R3GAN. Penalty points lie among
       images before T, and D sees each through a T of its own. Noise, which is added, leaves the
       gradient of a side as it is; it matters for the points between and around images.
    """

    def __init__(
        self,
        objective: str,
        terms: tuple[Term, ...],
        *,
        joint: bool,
        timetable: Timetable | None = None,
        measurement: Measurement | None = None,
        faded: Callable[[Tensor], Tensor] | None = None,
        transforms: tuple[ImageTransform, ...] = (),
        packing: int = 1,
    ) -> None:
        """Looks up the parts in their registries.

        Args:
            objective: entry of OBJECTIVES.
            terms: regularisers; constraints among them are not the game's.
            joint: D judges real and fake images in one pass; needs `rows_are_independent(D)`.
            timetable: of weights that change.
            measurement: damages G's images as the data is damaged.
            faded: makes real images as coarse as G's are while both players grow.
            transforms: what D sees of both sides' images, applied in this order; input noise among
                the terms follows.
            packing: images that D judges at once.
        """
        self.objective = OBJECTIVES[objective]
        self.penalties = tuple(
            (term, PENALTIES[term.name]) for term in terms if term.name in PENALTIES
        )
        self.joint = joint
        self.timetable = timetable or Timetable()
        self._packing = packing
        self._measurement = measurement
        self._faded = faded
        self._transforms = (
            *transforms,
            *(self._noise(term) for term in terms if term.name in INPUT_NOISES),
        )

    @property
    def has_vector_field(self) -> bool:
        """True where D's loss depends on G's images also through a penalty's second derivative."""
        return any(penalty.vector_field for _, penalty in self.penalties)

    @property
    def twice_through_generator(self) -> bool:
        """True where a loss contains a gradient of G."""
        return any(penalty.vector_field or penalty.maps for _, penalty in self.penalties)

    @property
    def differentiates_twice(self) -> bool:
        """True where a loss contains a gradient of D."""
        return any(penalty.vector_field or penalty.gradients for _, penalty in self.penalties)

    def losses(
        self,
        player: str,
        G: Player,
        D: Player,
        batch: Batch,
        fake_img: Tensor | None = None,
        *,
        part: Part = "whole",
    ) -> Losses:
        """Computes what a player minimises, differentiable by the parameters of both players.

        Args:
            player: D or G.
            G: latents and labels to images.
            D: images and labels to logits.
            batch: data and randomness.
            fake_img: G's images for the batch, where they exist already: a loop makes them once
                for both players.
            part: the terms to compute.
        """
        due = self.due(player, batch, part)
        judged = part != "lazy" or any(penalty.judges for _, penalty in due)
        gradients = frozenset[Point]().union(*(penalty.gradients for _, penalty in due))
        if fake_img is None:
            fake_img = batch.real_img  # stands in where D is shown none
            if judged or gradients - {"real"}:
                is_fixed = part == "lazy" and player == "D" and not self.has_vector_field
                with torch.no_grad() if is_fixed else nullcontext():
                    fake_img = self.generate(G, batch)
        if self._faded is not None:
            whole_img = None if batch.whole_img is None else self._faded(batch.whole_img)
            batch = replace(batch, real_img=self._faded(batch.real_img), whole_img=whole_img)
        features = any(penalty.features for _, penalty in due)
        vector_field = any(penalty.vector_field for _, penalty in due)
        # G's own loss often needs the fake logits alone: half of the work.
        needs_real = self.objective.paired or features or vector_field or "real" in gradients
        with only(batch.rows):
            # Dropout draws from the global generator: anew for each player, the same in a rerun.
            reseed(batch.key + 1 + PLAYERS.index(player), batch.z.device)
            forward = run_discriminator(
                D,
                batch,
                self._measured(fake_img, player, "fake", batch),
                G=G,
                transform=lambda img, point: self._transformed(img, player, point, batch),
                gradients=gradients,
                features=features,
                with_real=player == "D" or needs_real,
                sides=judged,
                joint=self.joint,
                packing=self._packing,
            )
            forward = replace(
                forward,
                vector_field=self._vector_field(G, forward) if vector_field else (),
                transform_like_real=lambda img: self._transformed(
                    self._measured(img, player, "real", batch), player, "real", batch
                ),
            )
            terms = {} if part == "lazy" else {"adversarial": self._adversarial(player, forward)}
            for term, penalty in due:
                weight = self.timetable.at(term.name, term.weight, batch.cur_nimg)
                # A lazy term also counts for the steps that skip it (Karras et al. 2020, sec. 3.1).
                terms[term.name] = weight * term.interval * penalty.value(forward)
        return Losses(terms=terms, forward=forward)

    def generate(self, G: Player, batch: Batch) -> Tensor:
        """Makes G's images for the batch, [N, C, H, W] float32 in [-1, 1]."""
        reseed(batch.key, batch.z.device)
        with only(batch.rows):
            img: Tensor = G(batch.z, batch.label)
        return img.float() if img.dtype == torch.bfloat16 else img

    def unrolled(
        self, G: Player, D: Movable, batch: Batch, fake_img: Tensor, *, steps: int, move: Steps
    ) -> Movable:
        """Returns D after some steps along its gradient, a function of both players' parameters.

        move: the optimiser whose steps these are.
        Source: Metz et al. 2017, arXiv:1611.02163, eq. 6 to 8.
        """
        for _ in range(steps):
            loss = self.losses("D", G, D, batch, fake_img).total
            # create_graph: G's loss is differentiated through these steps, too.
            gradients = torch.autograd.grad(
                loss, D.parameters(), create_graph=True, materialize_grads=True
            )
            D = D.moved(move(gradients))
        return D

    def _adversarial(self, player: str, forward: Forward) -> Tensor:
        real_logits, fake_logits = forward.real_logits, forward.fake_logits
        if player == "G":
            return self.objective.loss_G(
                fake_logits, real_logits if self.objective.paired else None
            )
        assert real_logits is not None
        return self.objective.loss_D(real_logits, fake_logits)

    def _vector_field(self, G: Player, forward: Forward) -> tuple[Tensor, ...]:
        """Returns each player's gradient of its objective, differentiable by both's parameters."""
        return tuple(
            gradient
            for player, network in (("G", G), ("D", forward.D))
            for gradient in torch.autograd.grad(
                self._adversarial(player, forward),
                parameters_of(network),
                create_graph=True,
                materialize_grads=True,
            )
        )

    def _measured(self, img: Tensor, player: str, draws_of: Point, batch: Batch) -> Tensor:
        """Damages images of G. draws_of: the side whose random numbers are used."""
        if self._measurement is None:
            return img
        return self._measurement(img, _seed(batch, 0, player, draws_of))

    def _transformed(self, img: Tensor, player: str, point: Point, batch: Batch) -> Tensor:
        """Returns what D sees of an image; every player and point has random numbers of its own."""
        first = 0 if self._measurement is None else 1
        for index, transform in enumerate(self._transforms, first):
            img = transform(img, batch, _seed(batch, index, player, point))
        return img

    def _noise(self, term: Term) -> ImageTransform:
        apply = INPUT_NOISES[term.name].apply

        def noisy(img: Tensor, batch: Batch, seed: int) -> Tensor:
            weight = self.timetable.at(term.name, term.weight, batch.cur_nimg)
            return apply(img, weight, seed) if weight > 0 else img

        return noisy

    def due(self, player: str, batch: Batch, part: Part = "whole") -> list[tuple[Term, Penalty]]:
        """The penalties of a player that count in the batch's step, of a part of its loss."""
        step = batch.step_D if player == "D" else batch.step_G
        return [
            (term, penalty)
            for term, penalty in self.penalties
            if penalty.player in (player, "both")
            and step % term.interval == 0
            and part in ("whole", "prompt" if term.interval == 1 else "lazy")
        ]


def _seed(batch: Batch, index: int, player: str, point: Point) -> int:
    """Returns the seed of the transform of that number, for one player's step and one point."""
    group, first = (SIDES, _SIDE_SEEDS) if point in SIDES else (tuple(PENALTY_POINTS), _POINT_SEEDS)
    step = index * len(PLAYERS) + PLAYERS.index(player)
    return batch.key + first + step * len(group) + group.index(point)
