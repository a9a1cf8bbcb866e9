"""The part of a bundle that has its directions, made at the export."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from models.bundle.directions import DIRECTIONS, Directions
from models.bundle.generator import Generate
from training.data import ImageSet
from training.data.sources.mixtures import MIXTURES
from training.export.exporter import Part
from training.interpretation.concepts import class_logits
from training.interpretation.directions import NUM, Subject, find_directions
from training.interpretation.sheet import sheet, summary, table

PICTURE = "directions.png"
TRIAL_KIMG = 3.0
"""Shorter trainings are trials: no directions are looked for, unless they are asked for."""
MAX_COST = 64 * 64 * 512
"""Pixels times z_dim: beyond it the derivatives take from minutes to hours on a CPU."""


def num_directions(asked: int | None, total_kimg: float, cost: int) -> int:
    """How many directions an export looks for.

    Args:
        asked: by --directions; None if it isn't given.
        total_kimg: the length of the training.
        cost: pixels of an image times the width of a latent.
    """
    if asked is not None:
        return asked
    return NUM if total_kimg >= TRIAL_KIMG and cost <= MAX_COST else 0


@dataclass(frozen=True, kw_only=True)
class DirectionsPart:
    """Makes the part; what `training.export.exporter.export` calls."""

    num: int
    """The most directions of a set; 0 makes no part."""
    image_set: ImageSet
    say: Callable[[str], None]

    def __call__(self, G: nn.Module, generate: Generate, z_dim: int) -> Part | None:
        """Finds the directions of G, on the device of the training."""
        if not self.num or self.image_set.name in MIXTURES:  # points show nothing to name
            return None
        try:
            found = self._found(G, generate, z_dim)
        except (RuntimeError, MemoryError, ArithmeticError, ValueError) as error:
            # The model is worth more than what is known of it: a training may not end for this.
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            self.say(
                f"warning: no directions: {reason}; fewer of them (--directions 4) need less, "
                "--directions 0 looks for none"
            )
            return None
        self.say(f"Looked inside: {summary(found)}")
        card = (
            "## What its latents do\n\nDirections in which the pixels change most, and what was "
            'measured to follow them; ask for them as `"directions": {"0": 1.5}`. That is '
            f"variance, not meaning.\n\n![directions]({PICTURE})\n\n{table(found)}"
        )
        return Part(files={DIRECTIONS: found.to_bytes(), PICTURE: sheet(found, "z")}, card=card)

    def _found(self, G: nn.Module, generate: Generate, z_dim: int) -> Directions:
        subject = Subject(
            G=copy.deepcopy(G).to(self.image_set.device),
            z_dim=z_dim,
            num_classes=self.image_set.shape.num_classes,
            classes=class_logits(self.image_set),
        )
        return find_directions(subject, generate, num=self.num)
