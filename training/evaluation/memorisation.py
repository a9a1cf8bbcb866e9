"""Does G repeat its training images? Nearest neighbours among them, against real images' own.

Compares pixels averaged to 16x16, not learned features: a copy is a copy in either, and so every
training image can be looked at.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from training.evaluation.interval import Estimate, Resampling, mean
from training.evaluation.neighbours import nearest

Floats = npt.NDArray[np.float64]

SIDE = 16
NEAR_QUANTILE = 0.01


@dataclass(frozen=True, kw_only=True)
class Memorisation:
    """Two figures of one search."""

    memorised: Estimate
    """Share of images as near to a training image as the nearest 1% of held-out images are."""
    authenticity: Estimate
    """Share of images farther from their nearest training image than that is from its own nearest
    (AuthPct, Alaa et al. 2022)."""


def memorisation(
    *, train: Floats, held_out: Floats, against: Floats, fake: Floats, resampling: Resampling
) -> Memorisation:
    """Both figures of pixels [N, d].

    Args:
        train: what G was trained on.
        held_out: real images that are not in `against`: how near are images that copy nothing?
        against: real images to measure held_out's distances to.
        fake: images to judge.
        resampling: for the intervals, which hold everything but `fake` fixed.
    """
    index, squared = nearest(fake, train)
    _, held_out_squared = nearest(held_out, against)
    _, own_squared = nearest(train, train)
    near = np.quantile(held_out_squared, NEAR_QUANTILE, method="lower")
    return Memorisation(
        memorised=mean(squared <= near, resampling),
        authenticity=mean(squared > own_squared[index], resampling),
    )


def pixels(images: Tensor) -> Floats:
    """[N, C, H, W] uint8 to [N, C * 256] float64 in [0, 1]."""
    parts = [
        nn.functional.adaptive_avg_pool2d(part.float() / 255, SIDE).flatten(1).cpu().numpy()
        for part in torch.split(images, 1024)
    ]
    rows: Floats = np.concatenate(parts).astype(np.float64)
    return rows
