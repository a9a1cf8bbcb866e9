"""Perceptrons for points of the plane, in the forms that papers play on mixtures with.

Coordinates are in units of the data's standard deviation, and G's output is linear: nothing bounds
it. As bytes, -span to span are 0 to 255.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from models.networks.activations import LeakyReLU, ReLU
from models.networks.family import Discriminator, Family, ImageShape, family, widen

SPAN = 1.5
"""Standard deviations that the byte 255 stands for: just beyond the outermost points."""
_SMALL = 0.02  # standard deviation of `normal` weights, as in Radford et al. 2016

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": ReLU,
    "leaky-relu": LeakyReLU,
    "tanh": nn.Tanh,
}


class MaxoutUnits(nn.Module):
    """[N, in] to [N, units], each the largest of `pieces` linear functions."""

    def __init__(self, num_in: int, units: int, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces
        self.linear = nn.Linear(num_in, units * pieces)

    def forward(self, x: Tensor) -> Tensor:
        """Takes the maximum over the pieces of each unit."""
        y: Tensor = self.linear(x)
        return y.view(len(y), -1, self.pieces).amax(2)


class PlaneGenerator(nn.Module):
    """[N, z_dim] to points [N, C, H, W], unbounded."""

    def __init__(self, shape: ImageShape, layers: list[nn.Module], width: int) -> None:
        super().__init__()
        self.span = SPAN
        self.image_size = (shape.channels, shape.height, shape.width)
        self.layers = nn.Sequential(*layers, nn.Linear(width, math.prod(self.image_size)))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Maps latents to points; takes no label."""
        img: Tensor = self.layers(z)
        return widen(img).view(-1, *self.image_size)


class PlaneDiscriminator(Discriminator):
    """[N, C, H, W] to logits [N]."""

    def __init__(self, layers: list[nn.Module], width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(width, 1)

    def features(self, img: Tensor, label: Tensor | None = None) -> Tensor:
        """Returns the last hidden layer, [N, width_D]; takes no label."""
        features: Tensor = self.layers(img.flatten(1))
        return features

    def logits(self, features: Tensor, label: Tensor | None = None) -> Tensor:
        """Applies the last linear layer; takes no label."""
        logits: Tensor = self.head(features)
        return logits.squeeze(1)


@family("plane")
@dataclass(frozen=True, kw_only=True)
class Plane(Family):
    """Perceptrons for points of the plane: ring-8 and grid-25."""

    points = True

    z_dim: int = 2
    """Width of the latent."""
    width_G: int = 256
    """Units of each hidden layer of G."""
    width_D: int = 256
    """Units of each hidden layer of D."""
    depth_G: int = 2
    """Hidden layers of G."""
    depth_D: int = 2
    """Hidden layers of D."""
    activation: Literal["relu", "leaky-relu", "tanh"] = "relu"
    """Of G's hidden layers, and of D's without maxout."""
    batch_norm_G: bool = False
    """Batch norm in G's hidden layers."""
    maxout_D: int = 0
    """Linear pieces of D's units, which take their maximum instead of the activation; 0: none."""
    init: Literal["uniform", "he", "glorot", "orthogonal", "normal"] = "uniform"
    """First weights: uniform as torch draws them; normal of He's variance; uniform of Glorot's;
    orthogonal times 1.4; normal of standard deviation 0.02. Biases start at 0 but with uniform."""

    def __post_init__(self) -> None:
        """Refuses options that make no network."""
        super().__post_init__()
        self.require_at_least(1, "width_G", "width_D", "depth_G", "depth_D")
        self.require_at_least(0, "maxout_D")
        self.require_one_of("activation", *_ACTIVATIONS)
        self.require_one_of("init", "uniform", "he", "glorot", "orthogonal", "normal")

    def check(self, shape: ImageShape) -> None:
        """Raises ValueError for labels and for more than a point: this pair is for points."""
        self.require_no_labels(shape)
        if (shape.height, shape.width, shape.channels // shape.pack) != (1, 2, 1):
            raise ValueError(
                f"resolution is {shape.size_text}, the family 'plane' makes points, 2x1 with 1 "
                "channel; choose the family 'mlp' or 'dcgan'"
            )

    def generator(self, shape: ImageShape) -> nn.Module:
        """Returns a G with new weights."""
        self.check(shape)
        layers: list[nn.Module] = []
        sizes = [self.z_dim, *[self.width_G] * self.depth_G]
        for num_in, num_out in itertools.pairwise(sizes):
            layers.append(nn.Linear(num_in, num_out))
            if self.batch_norm_G:
                layers.append(nn.BatchNorm1d(num_out))
            layers.append(_ACTIVATIONS[self.activation]())
        return self._initialised(PlaneGenerator(shape, layers, self.width_G))

    def discriminator(self, shape: ImageShape) -> Discriminator:
        """Returns a D with new weights."""
        self.check(shape)
        layers: list[nn.Module] = []
        sizes = [2 * shape.pack, *[self.width_D] * self.depth_D]
        for num_in, num_out in itertools.pairwise(sizes):
            if self.maxout_D:
                layers.append(MaxoutUnits(num_in, num_out, self.maxout_D))
            else:
                layers += [nn.Linear(num_in, num_out), _ACTIVATIONS[self.activation]()]
        D = PlaneDiscriminator(layers, self.width_D)
        self._initialised(D)
        return D

    def _initialised(self, network: nn.Module) -> nn.Module:
        for module in network.modules():
            if not isinstance(module, nn.Linear) or self.init == "uniform":
                continue
            if self.init == "he":
                nn.init.kaiming_normal_(module.weight)
            elif self.init == "glorot":
                nn.init.xavier_uniform_(module.weight)
            elif self.init == "orthogonal":
                nn.init.orthogonal_(module.weight, gain=1.4)
            else:
                nn.init.normal_(module.weight, std=_SMALL)
            nn.init.zeros_(module.bias)
        return network
