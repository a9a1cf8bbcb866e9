"""Does G repeat its training images? Nearest neighbours among them, against real images' own.

Compares pixels averaged to 16x16, not learned features: a copy is a copy in either, and so every
training image can be looked at.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from training.evaluation.interval import Estimate, Resampling, mean
from training.evaluation.neighbours import nearest, nearest_other

Rows = npt.NDArray[np.float32]

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
    *, train: Rows, held_out: Rows, against: Rows, fake: Rows, resampling: Resampling
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
    found, position = np.unique(index, return_inverse=True)
    own_squared = nearest_other(train, found)[position]
    near = np.quantile(held_out_squared, NEAR_QUANTILE, method="lower")
    return Memorisation(
        memorised=mean(squared <= near, resampling),
        authenticity=mean(squared > own_squared, resampling),
    )


def pixels(images: Tensor) -> Rows:
    """[N, C, H, W] uint8 to [N, C * 256] float32 in [0, 1]."""
    pooled = nn.functional.adaptive_avg_pool2d(images.float() / 255, SIDE)
    rows: Rows = pooled.flatten(1).cpu().numpy()
    return rows
