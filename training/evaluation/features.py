"""What features are, and the simplest: those of a convolutional network of random weights.

Knows no measure and no other features (`classifier`, `pretrained`).
"""

import hashlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from training.data import ImageSet

Rows = npt.NDArray[np.float32]
Say = Callable[[str], None]

_RANDOM_SEED = 0
NUM_RANDOM_FEATURES = 64


def silent(_line: str) -> None:
    """Says nothing."""


@dataclass(frozen=True, kw_only=True)
class Extractor:
    """A way from images to features."""

    name: str
    """Entry of `training.evaluation.plan.FEATURES`."""
    description: str
    """What a protocol tells of it: two that say the same give the same features."""
    num_features: int
    run: Callable[[Tensor], Rows]
    """[N, C, H, W] uint8 of any N to [N, num_features] float32."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """What extractors are made of."""

    image_set: ImageSet
    weights: Path | None = None
    cache: Path | None = None
    device: str = "cpu"
    say: Say = silent


def random_features(source: Source) -> Extractor:
    """A convolutional network of fixed random weights: no data, no training, always the same.

    Says more than pixels do, less than anything trained (compare its floor and ceiling).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_RANDOM_SEED)
        trunk = Trunk(source.image_set.shape.channels, source.image_set.shape.resolution)
        head = nn.Conv2d(trunk.num_channels, NUM_RANDOM_FEATURES // 4, 1)
    network = nn.Sequential(trunk, head, nn.AdaptiveAvgPool2d(2)).eval().requires_grad_(False)
    return Extractor(
        name="random",
        description=f"random: {trunk.num_layers} convolutions and 2x2 means, {digest_of(network)}",
        num_features=NUM_RANDOM_FEATURES,
        run=on_device(network.to(source.device), source.device),
    )


class Trunk(nn.Sequential):
    """Convolutions that halve an image until it is 4x4 or smaller, He-initialised."""

    def __init__(self, channels: int, resolution: int) -> None:
        layers: list[nn.Module] = []
        self.num_channels, self.side, self.num_layers = channels, resolution, 0
        while self.side > 4 or not layers:
            width = min(16 * 2**self.num_layers, 64)
            convolution = nn.Conv2d(self.num_channels, width, 3, stride=2, padding=1)
            nn.init.kaiming_normal_(convolution.weight)
            layers += [convolution, nn.LeakyReLU(0.1)]
            self.num_channels, self.side = width, (self.side + 1) // 2
            self.num_layers += 1
        super().__init__(*layers)


def on_device(network: nn.Module, device: str) -> Callable[[Tensor], Rows]:
    """Runs a network that takes images in [-1, 1] on uint8 ones, and flattens what it gives."""

    def run(images: Tensor) -> Rows:
        with torch.no_grad():
            rows: Rows = network(images.to(device).float() / 127.5 - 1).flatten(1).cpu().numpy()
        return rows

    return run


def reason(error: object) -> str:
    """Why a file can't be used, on one line of bounded length."""
    if isinstance(error, pickle.UnpicklingError):  # torch's text advises to run the file's code
        return "it is not a file of tensors"
    return " ".join(str(error).split())[:300] or type(error).__name__


def digest_of(network: nn.Module) -> str:
    """The first 16 digits of the sha256 over names and values of a network's weights."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value.cpu().numpy()).tobytes())
    return f"sha256 {digest.hexdigest()[:16]}"
