"""The interface of feature extractors, what they share, and the features of a random network."""

import hashlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.networks import ImageShape
from training.data import ImageSet

Rows = npt.NDArray[np.float32]
Say = Callable[[str], None]

_RANDOM_SEED = 0
NUM_RANDOM_FEATURES = 64


def silent(_line: str) -> None:
    """Drops a progress message."""


@dataclass(frozen=True, kw_only=True)
class Extractor:
    """A function from images to features, with its description."""

    name: str
    """Entry of `training.evaluation.plan.FEATURES`."""
    description: str
    """For protocols: extractors of equal descriptions give equal features."""
    num_features: int
    run: Callable[[Tensor], Rows]
    """[N, C, H, W] uint8 to [N, num_features] float32."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """The arguments of a function that makes an extractor."""

    image_set: ImageSet
    """The real images."""
    weights: Path | None = None
    """File of weights, for features that need one."""
    cache: Path | None = None
    """Folder that keeps trained networks; None keeps none."""
    device: str = "cpu"
    """Device that computes the features."""
    say: Say = silent
    """Called with progress messages."""


def random_features(source: Source) -> Extractor:
    """Features of a convolutional network of fixed random weights, without data or training.

    They tell images apart better than pixels do and worse than trained features: compare the
    figures' floor and ceiling.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_RANDOM_SEED)
        trunk = Trunk(source.image_set.shape)
        head = nn.Conv2d(trunk.num_channels, NUM_RANDOM_FEATURES // 4, 1)
    network = nn.Sequential(trunk, head, nn.AdaptiveAvgPool2d(2)).eval().requires_grad_(False)
    return Extractor(
        name="random",
        description=f"random: {trunk.num_layers} convolutions and 2x2 means, {digest_of(network)}",
        num_features=NUM_RANDOM_FEATURES,
        run=on_device(network.to(source.device), source.device),
    )


class Trunk(nn.Sequential):
    """Convolutions of stride 2 down to 4x4 pixels or fewer, He-initialised."""

    def __init__(self, shape: ImageShape) -> None:
        layers: list[nn.Module] = []
        self.num_channels, self.num_layers = shape.channels, 0
        height, width = shape.height, shape.width
        while max(height, width) > 4 or not layers:
            channels = min(16 * 2**self.num_layers, 64)
            convolution = nn.Conv2d(self.num_channels, channels, 3, stride=2, padding=1)
            nn.init.kaiming_normal_(convolution.weight)
            layers += [convolution, nn.LeakyReLU(0.1)]
            self.num_channels, height, width = channels, (height + 1) // 2, (width + 1) // 2
            self.num_layers += 1
        self.num_outputs = self.num_channels * height * width
        super().__init__(*layers)


def on_device(network: nn.Module, device: str) -> Callable[[Tensor], Rows]:
    """A function from uint8 images to the flat outputs of a network that takes [-1, 1]."""

    def run(images: Tensor) -> Rows:
        with torch.no_grad():
            rows: Rows = network(images.to(device).float() / 127.5 - 1).flatten(1).cpu().numpy()
        return rows

    return run


def averaged_pixels(images: Tensor, side: int) -> Rows:
    """[N, C, H, W] uint8 to rows [N, C * side^2] in [0, 1]: pixels averaged to side x side."""
    pooled = nn.functional.adaptive_avg_pool2d(images.float() / 255, side)
    rows: Rows = pooled.flatten(1).cpu().numpy()
    return rows


def reason(error: object) -> str:
    """An error's text on one line of at most 300 characters, for messages about a file."""
    # torch's own text would advise to load the file in a way that runs its code.
    if isinstance(error, pickle.UnpicklingError):
        return "it is not a file of tensors"
    return " ".join(str(error).split())[:300] or type(error).__name__


def digest_of(network: nn.Module) -> str:
    """The sha256 over the names and values of a network's weights, its first 16 digits."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value.cpu().numpy()).tobytes())
    return f"sha256 {digest.hexdigest()[:16]}"
