"""Does G repeat its training images? Nearest neighbours among them, against real images' own.

Compares pixels averaged to 16x16, not learned features: a copy is a copy in either, and so every
training image can be looked at.
"""

import hashlib
from dataclasses import dataclass, replace

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
    """Share of images as near to a training image as the nearest 1% of held-out images are that
    aren't there a second time."""
    authenticity: Estimate
    """Share of images farther from their nearest training image than that is from its own nearest
    (AuthPct, Alaa et al. 2022)."""


def memorisation(
    *, train: Rows, held_out: Rows, against: Rows, fake: Rows, resampling: Resampling
) -> Memorisation:
    """Both figures of pixels [N, d].

    Of images that are there several times one counts: where 1% were copies of others, nothing but
    a copy to the bit would be near, and beside an image that is there twice nothing is near enough.

    Args:
        train: what G was trained on.
        held_out: real images that are not in `against`: how near are images that copy nothing?
        against: real images to measure held_out's distances to.
        fake: images to judge.
        resampling: for the intervals, which hold everything but `fake` fixed.
    """
    num_all = len(train)
    train, against = _distinct(train), _distinct(against)
    index, squared = nearest(fake, train)
    _, held_out_squared = nearest(_distinct(held_out), against)
    others = held_out_squared[held_out_squared > 0]
    found, position = np.unique(index, return_inverse=True)
    own_squared = nearest_other(train, found)[position]
    near = float(np.quantile(others, NEAR_QUANTILE, method="lower")) if len(others) else 0.0
    # As the root of the mean square over the pixels, which people can imagine.
    steps = 255 * (near / train.shape[1]) ** 0.5
    told = {"near_steps": round(steps, 3), "duplicates": round(1 - len(train) / num_all, 6)}
    return Memorisation(
        memorised=replace(mean(squared <= near, resampling), told=told),
        authenticity=replace(mean(squared > own_squared, resampling), told=told),
    )


def _distinct(rows: Rows) -> Rows:
    """The rows, in their order, each once."""
    first: dict[bytes, int] = {}
    for i, row in enumerate(np.ascontiguousarray(rows)):
        first.setdefault(hashlib.blake2b(row.data, digest_size=16).digest(), i)
    return rows[list(first.values())]


def pixels(images: Tensor) -> Rows:
    """[N, C, H, W] uint8 to [N, C * 256] float32 in [0, 1]."""
    pooled = nn.functional.adaptive_avg_pool2d(images.float() / 255, SIDE)
    rows: Rows = pooled.flatten(1).cpu().numpy()
    return rows
