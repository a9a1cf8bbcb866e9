"""Memorisation: how near generated images are to training images, compared with real images.

It compares pixels averaged to 16x16 rather than learned features. A copy is found in either, and
small pixels are cheap enough to search every training image.
"""

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from training.evaluation.metrics.bootstrap import Estimate, Resampling, mean
from training.evaluation.metrics.neighbours import nearest, nearest_other

Rows = npt.NDArray[np.float32]

SIDE = 16
NEAR_QUANTILE = 0.01


@dataclass(frozen=True, kw_only=True)
class Memorisation:
    """Two figures of the distance to the nearest training image."""

    memorised: Estimate
    """Share of images whose distance is within that of the nearest 1% of held-out images, exact
    duplicates not counted."""
    authenticity: Estimate
    """Share of images that are farther from their nearest training image than that image is from
    its own nearest neighbour (AuthPct, Alaa et al. 2022)."""


def memorisation(
    *, train: Rows, held_out: Rows, against: Rows, fake: Rows, resampling: Resampling
) -> Memorisation:
    """Computes both figures from pixels, [N, d] each.

    Duplicates count once. If 1% of the data were duplicates, the threshold would be 0, and only
    exact copies would count as memorised; and the nearest neighbour of a duplicate is at distance
    0, so that nothing could be nearer.

    Args:
        train: the images that G was trained on.
        held_out: real images that are not in `against`; they show how near images are that copy
            nothing.
        against: real images that the distances of `held_out` are measured to.
        fake: images to measure.
        resampling: for the intervals, which keep everything but `fake`.
    """
    num_all = len(train)
    train, against = _distinct(train), _distinct(against)
    index, squared = nearest(fake, train)
    _, held_out_squared = nearest(_distinct(held_out), against)
    others = held_out_squared[held_out_squared > 0]
    found, position = np.unique(index, return_inverse=True)
    own_squared = nearest_other(train, found)[position]
    near = float(np.quantile(others, NEAR_QUANTILE, method="lower")) if len(others) else 0.0
    # Reported as a root mean square over the pixels, in 8-bit steps.
    steps = 255 * (near / train.shape[1]) ** 0.5
    details = {"near_steps": round(steps, 3), "duplicates": round(1 - len(train) / num_all, 6)}
    return Memorisation(
        memorised=replace(mean(squared <= near, resampling), details=details),
        authenticity=replace(mean(squared > own_squared, resampling), details=details),
    )


def _distinct(rows: Rows) -> Rows:
    """The rows in their order, without duplicates."""
    first: dict[bytes, int] = {}
    for i, row in enumerate(np.ascontiguousarray(rows)):
        first.setdefault(hashlib.blake2b(row.data, digest_size=16).digest(), i)
    return rows[list(first.values())]
