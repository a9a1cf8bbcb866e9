"""A convolutional autoencoder of a wanted number of parameters: the yardstick of equal size.

Its score is the mean squared error of the reconstruction. It sees real images alone, and has no
generator that could only make what is usual.
"""

import itertools

import numpy as np
import torch
from torch import Tensor, nn

from models.networks import ImageShape
from training.randomness import generator, key

TOLERANCE = 0.1
"""How far its number of parameters may be from the wanted one, as a share."""
_WIDTHS = (64, 32, 16, 8, 4, 2)
_LEAST_SIDE = 4  # of the last map
_MAX_MULTIPLE = 8
_SLOPE = 0.2
_BATCH, _LR = 64, 1e-3


class Autoencoder(nn.Module):
    """Images [N, C, H, W] in [-1, 1] to their reconstructions, through z_dim numbers."""

    def __init__(self, shape: ImageShape, z_dim: int, *, width: int, hidden: int) -> None:
        """width: channels of the finest map; hidden: width of the layers beside the bottleneck."""
        super().__init__()
        sides, widths = (shape.height, shape.width), [shape.channels]
        while min(sides) > _LEAST_SIDE and not any(side % 2 for side in sides):
            sides = (sides[0] // 2, sides[1] // 2)
            widths.append(width * min(2 ** (len(widths) - 1), _MAX_MULTIPLE))
        flat = widths[-1] * sides[0] * sides[1]
        layers: list[nn.Module] = []
        for narrow, wide in itertools.pairwise(widths):
            layers += [nn.Conv2d(narrow, wide, 4, stride=2, padding=1), nn.LeakyReLU(_SLOPE)]
        layers += [nn.Flatten(), nn.Linear(flat, hidden), nn.LeakyReLU(_SLOPE)]
        layers += [nn.Linear(hidden, z_dim), nn.Linear(z_dim, hidden), nn.LeakyReLU(_SLOPE)]
        layers += [nn.Linear(hidden, flat), nn.Unflatten(1, (widths[-1], *sides))]
        for wide, narrow in itertools.pairwise(widths[::-1]):
            layers += [nn.LeakyReLU(_SLOPE)]
            layers += [nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1)]
        self.layers = nn.Sequential(*layers, nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        """Reconstructs."""
        found: Tensor = self.layers(x)
        return found


def of_size(shape: ImageShape, z_dim: int, num_parameters: int) -> Autoencoder:
    """An autoencoder with about so many parameters: the widest whose bottleneck is narrower.

    num_parameters: at least some hundreds.
    """
    width, hidden = _WIDTHS[-1], 1
    for width in _WIDTHS:
        # The number is linear in `hidden`.
        one, two = (_count(shape, z_dim, width, hidden) for hidden in (1, 2))
        hidden = max(1, round((num_parameters - one) / (two - one)) + 1)
        if hidden >= z_dim and _is_near(one + (hidden - 1) * (two - one), num_parameters):
            break
    return Autoencoder(shape, z_dim, width=width, hidden=hidden)


def size_of(network: nn.Module) -> int:
    """Its number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def _count(shape: ImageShape, z_dim: int, width: int, hidden: int) -> int:
    with torch.device("meta"):
        return size_of(Autoencoder(shape, z_dim, width=width, hidden=hidden))


def _is_near(found: int, wanted: int) -> bool:
    return abs(found - wanted) <= TOLERANCE * wanted


def fitted(network: Autoencoder, x: Tensor, *, kimg: float, seed: int) -> Autoencoder:
    """Trains it on images [N, C, H, W] in [-1, 1] by Adam, whose rate falls along a cosine."""
    steps = max(1, round(kimg * 1000 / _BATCH))
    optim = torch.optim.Adam(network.parameters(), lr=_LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optim, steps)
    draw = generator(torch.device("cpu"), key(seed, "autoencoder", 0))
    for _ in range(steps):
        rows = torch.randint(len(x), (_BATCH,), generator=draw)
        loss = (network(x[rows]) - x[rows]).square().mean()
        optim.zero_grad(set_to_none=True)
        loss.backward()
        optim.step()
        schedule.step()
    return network.eval()


@torch.no_grad()
def errors(network: Autoencoder, x: Tensor) -> np.ndarray:
    """Mean squared error of each image's reconstruction, [N] float64."""
    parts = [(network(part) - part).square().mean((1, 2, 3)) for part in torch.split(x, 256)]
    return torch.cat(parts).double().numpy()
