"""Mixtures in the plane as a game: perceptrons, and points instead of images.

Any recipe's game can be played on them: its objective, regularisers, optimisers, updates and
averages, without its networks. What the points should look like is `training.evaluation.modes`.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from models.networks import MLP, Discriminator
from models.networks.activations import LeakyReLU
from training.augment import AugmentConfig
from training.config import TrainingConfig
from training.data import DataConfig
from training.evaluation.modes import Mixture
from training.randomness import key, reseed
from training.regularizers import PENALTIES
from training.state import State

Z_DIM = 16
HIDDEN = 128
UNROLLED_LR = 0.01
CPU = torch.device("cpu")


class PointGenerator(nn.Module):
    """[N, z_dim] to points [N, 2]: two hidden layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(Z_DIM, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, 2),
        )

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Takes no label."""
        points: Tensor = self.layers(z)
        return points


class PointDiscriminator(Discriminator):
    """Points [N, 2] to logits [N]: two hidden layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2, HIDDEN), LeakyReLU(), nn.Linear(HIDDEN, HIDDEN), LeakyReLU()
        )
        self.head = nn.Linear(HIDDEN, 1)

    def features(self, img: Tensor, label: Tensor | None = None) -> Tensor:
        """See `Discriminator`; img: points."""
        features: Tensor = self.layers(img)
        return features

    def logits(self, features: Tensor, label: Tensor | None = None) -> Tensor:
        """See `Discriminator`."""
        logits: Tensor = self.head(features).squeeze(1)
        return logits


class MixtureDeal:
    """Endless fresh draws of a mixture. Implements `training.stepper.Deal`."""

    device = CPU

    def __init__(self, mixture: Mixture, config: TrainingConfig) -> None:
        """config: its batch size and seed."""
        self._mixture = mixture
        self._config = config

    def at(self, cur_nimg: int) -> tuple[Tensor, Tensor | None]:
        """Points [batch_size, 2] float32, a function of the seed and cur_nimg."""
        rng = np.random.default_rng(key(self._config.seed, "points", cur_nimg))
        points = self._mixture.sample(self._config.batch_size, rng)
        return torch.from_numpy(points.astype(np.float32)), None


def toy(config: TrainingConfig, **options: object) -> TrainingConfig:
    """A recipe's game for points: what needs images, classes or an encoder is left out.

    Unrolled steps are of another size: a D of perceptrons barely moves by what a D of convolutions
    is thrown by.
    """
    terms = tuple(
        term
        for term in config.regularizers
        if term.name not in PENALTIES or not PENALTIES[term.name].encodes
    )
    plain: dict[str, object] = {
        "network": MLP(z_dim=Z_DIM),
        "data": DataConfig(conditional=False),
        "init_D": "family",
        "regularizers": terms,
        "augment": AugmentConfig(),
        "unrolled_lr": UNROLLED_LR,
    }
    return replace(config, **{**plain, **options})  # type: ignore[arg-type]


def fresh(config: TrainingConfig) -> State:
    """Newly initialised players of a toy."""
    reseed(key(config.seed, "init", 0), CPU)
    return State.of(config, PointGenerator(), PointDiscriminator(), CPU)


@torch.no_grad()
def points(G: nn.Module, num: int, seed: int) -> np.ndarray:
    """[num, 2] float32 of a generator. seed: of the latents."""
    generator = torch.Generator().manual_seed(seed)
    found: np.ndarray = G(torch.randn(num, Z_DIM, generator=generator)).numpy()
    return found
