"""The founding article's pair of perceptrons, which is its own: Goodfellow et al. 2014 have others.

`models.networks.maxout` has those.

G: z - 256 - ReLU - pixels - Tanh. D: pixels - 256 - LeakyReLU(0.2) - Dropout(0.3) - 1. The
article's closing Sigmoid is left to the loss, which takes logits: log(1 - sigmoid(x)) then never
reaches -inf.
"""

import itertools
from dataclasses import dataclass

from torch import Tensor, nn

from models.networks.activations import LeakyReLU, ReLU
from models.networks.family import Discriminator, Family, ImageShape, family, widen
from models.networks.layers import Dropout


class MLPGenerator(nn.Module):
    """[N, z_dim] to [N, C, H, W] in [-1, 1]."""

    def __init__(self, shape: ImageShape, z_dim: int, hidden: int) -> None:
        super().__init__()
        self.image_size = (shape.channels, shape.height, shape.width)
        num_pixels = shape.channels * shape.height * shape.width
        self.layers = nn.Sequential(
            nn.Linear(z_dim, hidden), ReLU(), nn.Linear(hidden, num_pixels), nn.Tanh()
        )

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Maps latents to images; takes no label."""
        img: Tensor = self.layers(z)
        return widen(img).view(-1, *self.image_size)


class MLPDiscriminator(Discriminator):
    """[N, C, H, W] to logits [N]."""

    def __init__(self, shape: ImageShape, hidden: int, dropout: float) -> None:
        super().__init__()
        num_pixels = shape.channels * shape.height * shape.width
        self.layers = nn.Sequential(
            nn.Linear(num_pixels, hidden),
            LeakyReLU(),
            Dropout(dropout),
            nn.Linear(hidden, 1),
        )

    def features(self, img: Tensor, label: Tensor | None = None) -> Tensor:
        """Returns the hidden layer, [N, hidden], after dropout; takes no label."""
        features = img.flatten(1)
        for layer in itertools.islice(self.layers, len(self.layers) - 1):
            features = layer(features)
        return features

    def logits(self, features: Tensor, label: Tensor | None = None) -> Tensor:
        """Applies the last linear layer; takes no label."""
        logits: Tensor = self.layers[-1](features)
        return logits.squeeze(1)


@family("mlp")
@dataclass(frozen=True, kw_only=True)
class MLP(Family):
    """The article's perceptrons, 100-256-784 and 784-256-1 as it has them."""

    z_dim: int = 100
    """Width of the latent."""
    hidden: int = 256
    """Units of each player's hidden layer."""
    dropout: float = 0.3
    """Share of D's hidden units dropped in training, in [0, 1)."""

    def __post_init__(self) -> None:
        """Refuses options that make no network."""
        super().__post_init__()
        self.require_at_least(1, "hidden")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}, must lie in [0, 1)")

    def check(self, shape: ImageShape) -> None:
        """Raises ValueError for labels: this pair is unconditional."""
        self.require_no_labels(shape)

    def generator(self, shape: ImageShape) -> nn.Module:
        """Returns a G with torch's default weights."""
        self.check(shape)
        return MLPGenerator(shape, self.z_dim, self.hidden)

    def discriminator(self, shape: ImageShape) -> Discriminator:
        """Returns a D with torch's default weights."""
        self.check(shape)
        return MLPDiscriminator(shape, self.hidden, self.dropout)
