"""Mode coverage: which modes of a mixture in the plane, or classes of images, a generator makes.

The mixtures are those of `training.data.sources.mixtures`, the protocol is that of Lin et al. 2018
(PacGAN), section 4.1. This module works on arrays from anywhere.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.data.sources.mixtures import MIXTURES, Mixture

__all__ = ["GOOD_SIGMAS", "MIXTURES", "NUM_SAMPLES", "Mixture", "Modes", "modes", "reverse_kl"]

NUM_SAMPLES = 2500  # of the published tables
GOOD_SIGMAS = 3.0


@dataclass(frozen=True, kw_only=True)
class Modes:
    """How well samples cover a mixture."""

    caught: int
    """Number of modes with at least one good sample."""
    good_share: float
    """Share of samples within 3 sigma of the nearest centre; exact draws give 1 - exp(-4.5)."""
    reverse_kl: float
    """KL(generated || data) over the modes in nats, every sample counted for its nearest mode."""


def modes(samples: npt.NDArray[np.floating], mixture: Mixture) -> Modes:
    """Counts the modes of a mixture that samples hit (Lin et al. 2018, section 4.1).

    Args:
        samples: [N, 2]. Rows that are not finite are not good and belong to no mode.
        mixture: the distribution that they should have.

    Returns:
        The counts; reverse_kl is infinite where no sample is finite.

    Raises:
        ValueError: the samples have another shape, or there are none.
    """
    points = np.asarray(samples, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
        raise ValueError(f"samples have shape {list(points.shape)}, allowed: [N, 2] with N >= 1")
    finite = points[np.isfinite(points).all(axis=1)]
    distances = np.linalg.norm(finite[:, None] - mixture.centres[None], axis=2)
    nearest = distances.argmin(axis=1)
    good = distances.min(axis=1) <= GOOD_SIGMAS * mixture.sigma
    num_modes = len(mixture.centres)
    return Modes(
        caught=len(np.unique(nearest[good])),
        good_share=float(good.sum() / len(points)),
        reverse_kl=reverse_kl(np.bincount(nearest, minlength=num_modes), np.ones(num_modes)),
    )


def reverse_kl(generated: npt.NDArray[np.generic], data: npt.NDArray[np.generic]) -> float:
    """KL(generated || data) in nats of two histograms [K], which are normalised first.

    It is infinite where the generated histogram is empty, or counts something in a bin that is
    empty in the data.
    """
    q = np.asarray(generated, dtype=np.float64)
    p = np.asarray(data, dtype=np.float64)
    if q.sum() == 0 or (q[p == 0] > 0).any():
        return math.inf
    q, p = q / q.sum(), p / p.sum()
    there = q > 0
    return max(0.0, float((q[there] * np.log(q[there] / p[there])).sum()))
