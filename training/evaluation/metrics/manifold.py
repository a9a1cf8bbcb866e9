"""Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020).

Every sample is the centre of a ball whose radius is the distance to its k-th nearest neighbour in
the same set. All four figures count which samples of one set lie in balls of the other. As in
Naeem's code a sample on the boundary is outside, and a centre isn't its own neighbour. This module
works on arrays from anywhere.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.errors import ConfigError
from training.evaluation.metrics.bootstrap import Estimate, Resampling, mean
from training.evaluation.metrics.neighbours import shifted, squared_distances, squared_radii

NEAREST_K = 5


@dataclass(frozen=True, kw_only=True)
class Manifold:
    """Precision, recall, density and coverage of one sample."""

    precision: Estimate
    """Share of fakes that lie in at least one real ball: do they look real?"""
    recall: Estimate
    """Share of real images that lie in at least one fake ball: can they be generated?"""
    density: Estimate
    """Mean number of real balls that a fake lies in, over k: about 1 for real images, can be
    larger."""
    coverage: Estimate
    """Share of real balls with a fake in them. A single outlying fake hardly changes it."""


def manifold(
    real: npt.NDArray[np.floating],
    fake: npt.NDArray[np.floating],
    *,
    nearest_k: int = NEAREST_K,
    resampling: Resampling | None = None,
) -> Manifold:
    """Computes the four figures.

    Args:
        real: features [N, d].
        fake: features [M, d].
        nearest_k: the neighbour that a ball reaches to.
        resampling: for the intervals, which keep the balls and resample what is counted in them;
            no intervals by default.

    Raises:
        ConfigError: there are at most nearest_k samples.
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
