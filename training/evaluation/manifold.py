"""Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020).

All four ask which samples lie in balls around the other set's samples, each ball as wide as the
distance to its centre's k-th nearest neighbour. As in Naeem's code: strictly inside, and the k
neighbours don't count the centre itself. Knows arrays, not where they are from.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.errors import ConfigError
from training.evaluation.interval import Estimate, Resampling, mean
from training.evaluation.neighbours import shifted, squared_distances, squared_radii

NEAREST_K = 5


@dataclass(frozen=True, kw_only=True)
class Manifold:
    """The four figures."""

    precision: Estimate
    """Share of fakes in any ball of real images: are they like real ones?"""
    recall: Estimate
    """Share of real images in any ball of fakes: could they be made?"""
    density: Estimate
    """Balls of real images that a fake lies in, over k: about 1 for real images, can exceed it."""
    coverage: Estimate
    """Share of balls of real images with a fake in them: unmoved by a single stray fake."""


def manifold(
    real: npt.NDArray[np.floating],
    fake: npt.NDArray[np.floating],
    *,
    nearest_k: int = NEAREST_K,
    resampling: Resampling | None = None,
) -> Manifold:
    """All four of features real [N, d] and fake [M, d].

    The intervals hold the balls fixed and resample what is counted.

    Raises:
        ConfigError: there are no more than nearest_k samples.
    """
    num_least = min(len(real), len(fake))
    if num_least <= nearest_k:
        raise ConfigError(
            f"num_images is {num_least}, allowed for precision, recall, density and coverage: more "
            f"than their {nearest_k} neighbours; take more images"
        )
    near_real, near_fake = shifted(real, fake)
    real_radii = squared_radii(near_real, nearest_k)
    fake_radii = squared_radii(near_fake, nearest_k)
    num_balls = np.zeros(len(fake), dtype=np.int64)
    recalled = np.empty(len(real), dtype=bool)
    covered = np.empty(len(real), dtype=bool)
    for rows, block in squared_distances(near_real, near_fake):
        inside = block < real_radii[rows, None]
        num_balls += inside.sum(axis=0)
        covered[rows] = inside.any(axis=1)
        recalled[rows] = (block < fake_radii).any(axis=1)
    resampling = resampling or Resampling()
    return Manifold(
        precision=mean(num_balls > 0, resampling),
        recall=mean(recalled, resampling),
        density=mean(num_balls / nearest_k, resampling),
        coverage=mean(covered, resampling),
    )
