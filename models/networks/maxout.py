"""The pair of perceptrons of Goodfellow et al. 2014 on MNIST, by their published configuration.

G: uniform latents - 1200 - ReLU - 1200 - ReLU - pixels - sigmoid. D: dropout - 240 maxout units of
5 pieces, twice - 1 (Goodfellow et al. 2013). Weights start uniform in +-0.05 and +-0.005.

Latents are standard normal everywhere else in this project, and a seed must mean the same for every
model: so G turns them into uniform ones by their own distribution function, 2 Phi(z) - 1. The
paper's pixels lie in [0, 1]; G's are stretched to [-1, 1], and D shrinks what it sees again.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.networks.activations import ReLU
from models.networks.family import Discriminator, Family, ImageShape, family, widen
from models.networks.layers import Dropout

_RANGE_G, _RANGE_D = 0.05, 0.005  # of the first weights
_VISIBLE_DROPOUT, _HIDDEN_DROPOUT = 0.2, 0.5  # shares that D drops in training


class MaxoutGenerator(nn.Module):
    """[N, z_dim] to [N, C, H, W] in [-1, 1]."""

    def __init__(self, shape: ImageShape, z_dim: int, hidden: int) -> None:
        super().__init__()
        self.image_size = (shape.channels, shape.height, shape.width)
        num_pixels = math.prod(self.image_size)
        self.layers = nn.Sequential(
            _linear(z_dim, hidden, _RANGE_G),
            ReLU(),
            _linear(hidden, hidden, _RANGE_G),
            ReLU(),
            _linear(hidden, num_pixels, _RANGE_G),
        )

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Maps latents to images; takes no label."""
        uniform = torch.erf(z / math.sqrt(2))  # of a standard normal z: uniform in [-1, 1]
        pixels = torch.sigmoid(widen(self.layers(uniform)))
        return (2 * pixels - 1).view(-1, *self.image_size)


class Maxout(nn.Module):
    """[N, in] to [N, units], each the largest of `pieces` linear functions."""

    def __init__(self, num_in: int, units: int, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces
        self.linear = _linear(num_in, units * pieces, _RANGE_D)

    def forward(self, x: Tensor) -> Tensor:
        """Takes the maximum over the pieces of each unit."""
        y: Tensor = self.linear(x)
        return y.view(len(y), -1, self.pieces).amax(2)


class MaxoutDiscriminator(Discriminator):
    """[N, C, H, W] to logits [N]."""

    def __init__(self, shape: ImageShape, units: int, pieces: int) -> None:
        super().__init__()
        num_pixels = shape.channels * shape.height * shape.width
        self.layers = nn.Sequential(
            Dropout(_VISIBLE_DROPOUT),
            Maxout(num_pixels, units, pieces),
            Dropout(_HIDDEN_DROPOUT),
            Maxout(units, units, pieces),
            Dropout(_HIDDEN_DROPOUT),
        )
        self.head = _linear(units, 1, _RANGE_D)

    def features(self, img: Tensor, label: Tensor | None = None) -> Tensor:
        """Returns the second maxout layer, [N, units], after dropout; takes no label."""
        features: Tensor = self.layers((img.flatten(1) + 1) / 2)
        return features

    def logits(self, features: Tensor, label: Tensor | None = None) -> Tensor:
        """Applies the last linear layer; takes no label."""
        logits: Tensor = self.head(features)
        return logits.squeeze(1)


@family("maxout")
@dataclass(frozen=True, kw_only=True)
class MaxoutPair(Family):
    """Goodfellow et al.'s perceptrons, 100-1200-1200-784 and 784-240x5-240x5-1 on MNIST."""

    z_dim: int = 100
    """Width of the latent."""
    hidden: int = 1200
    """Units of G's hidden layers."""
    units: int = 240
    """Maxout units of D's hidden layers."""
    pieces: int = 5
    """Linear pieces of each maxout unit."""

    def __post_init__(self) -> None:
        """Refuses options that make no network."""
        super().__post_init__()
        self.require_at_least(1, "hidden", "units", "pieces")

    def check(self, shape: ImageShape) -> None:
        """Raises ValueError for labels: this pair is unconditional."""
        self.require_no_labels(shape)

    def generator(self, shape: ImageShape) -> nn.Module:
        """Returns a G with weights uniform in +-0.05."""
        self.check(shape)
        return MaxoutGenerator(shape, self.z_dim, self.hidden)

    def discriminator(self, shape: ImageShape) -> Discriminator:
        """Returns a D with weights uniform in +-0.005."""
        self.check(shape)
        return MaxoutDiscriminator(shape, self.units, self.pieces)


def _linear(num_in: int, num_out: int, bound: float) -> nn.Linear:
    linear = nn.Linear(num_in, num_out)
    nn.init.uniform_(linear.weight, -bound, bound)
    nn.init.zeros_(linear.bias)
    return linear
