"""How good a trial's images are: one number of the figures that looks and evaluations have.

Points of a mixture: the Gaussians that were found plus the share of good points, so that a mode
counts more than any share. Images: the Frechet distance to real images, or the kernel distance
where there are too few for it. All trials are measured on the same latents against the same real
images, by the averaged generator.
"""

import math

from torch import nn

from models.bundle.generator import Sampler
from training.data import ImageSet
from training.errors import EvaluationError, StabilityError
from training.evaluation.looks import HEADLINE, Figures, Looker
from training.evaluation.plan import is_mixture
from training.export.onnx_graphs import UInt8Generator
from training.export.torch_generator import TorchGenerator

_INSTEAD = "kernel_distance"
POINTS = "Gaussians + good share"
WORST = -math.inf
"""Of a trial that diverged."""


class Judge:
    """Measures generators of one data set."""

    def __init__(self, image_set: ImageSet, z_dim: int) -> None:
        """z_dim: of the generators that are measured.

        Raises:
            StabilityError: there are too few real images to compare with.
        """
        self._looker = Looker(image_set)
        self._num_classes, self._z_dim = image_set.shape.num_classes, z_dim
        names = (HEADLINE, _INSTEAD)
        found = [name for name in names if name in self._looker.figures]
        if not is_mixture(image_set) and not found:
            raise StabilityError(
                f"the data {image_set.name!r} has {len(image_set)} images: too few to tell how "
                "good generated ones are; leave --trials out, or train with more images"
            )
        self.figure = POINTS if is_mixture(image_set) else found[0]
        """What quality is, in words."""

    @property
    def num_images(self) -> int:
        """Generated images that are compared."""
        return self._looker.num_images

    def look(self, G_ema: nn.Module) -> Figures:
        """Measures a generator in evaluation mode: figures by name; none where not finite."""
        generate = TorchGenerator(UInt8Generator(G_ema))
        sampler = Sampler(generate, z_dim=self._z_dim, num_classes=self._num_classes)
        try:
            return self._looker.look(sampler)
        except EvaluationError:
            return {}

    def quality(self, figures: Figures) -> float:
        """One number, the more the better; WORST where there are no figures."""
        if not figures:
            return WORST
        if self.figure == POINTS:
            return figures["gaussians"] + figures["good_points"]
        return -figures[self.figure]
