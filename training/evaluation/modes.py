"""Which modes of the data a generator makes: mixtures in the plane, and classes of images.

NumPy alone: knows no model and no images. The mixtures are those of Metz et al. 2017 and
Srivastava et al. 2017 (VEEGAN); the protocol is of Lin et al. 2018 (PacGAN), section 4.1.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

NUM_SAMPLES = 2500  # that the published tables count over
_GOOD_SIGMAS = 3.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Mixture:
    """Gaussians of one width and equal weight in the plane. centres: [K, 2] float64."""

    name: str
    centres: Floats
    sigma: float

    def sample(self, num: int, rng: np.random.Generator) -> Floats:
        """[num, 2] float64 draws."""
        chosen = self.centres[rng.integers(len(self.centres), size=num)]
        return chosen + self.sigma * rng.standard_normal((num, 2))


def _ring(num: int) -> Floats:
    angles = 2 * np.pi * np.arange(num) / num
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _grid(sides: tuple[float, ...]) -> Floats:
    return np.array([(x, y) for x in sides for y in sides], dtype=np.float64)


MIXTURES = {
    mixture.name: mixture
    for mixture in (
        Mixture(name="ring-8", centres=_ring(8), sigma=0.01),
        Mixture(name="grid-25", centres=_grid((-4, -2, 0, 2, 4)), sigma=0.05),
    )
}


@dataclass(frozen=True, kw_only=True)
class Modes:
    """What was caught."""

    caught: int
    """Modes with at least one good sample."""
    good_share: float
    """Share of samples within 3 sigma of the nearest centre; exact draws give 1 - exp(-4.5)."""
    reverse_kl: float
    """KL(generated || data) over the modes in nats, every sample counted for its nearest mode."""


def modes(samples: npt.NDArray[np.floating], mixture: Mixture) -> Modes:
    """Counts the modes of a mixture that samples hit (Lin et al. 2018, section 4.1).

    Args:
        samples: [N, 2]. Rows that are not finite are not good and belong to no mode.
        mixture: what they should look like.

    Returns:
        The counts; reverse_kl is infinite where no sample is finite.
    """
    points = np.asarray(samples, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
        raise ValueError(f"samples have shape {list(points.shape)}, allowed: [N, 2] with N >= 1")
    finite = points[np.isfinite(points).all(axis=1)]
    distances = np.linalg.norm(finite[:, None] - mixture.centres[None], axis=2)
    nearest = distances.argmin(axis=1)
    good = distances.min(axis=1) <= _GOOD_SIGMAS * mixture.sigma
    num_modes = len(mixture.centres)
    return Modes(
        caught=len(np.unique(nearest[good])),
        good_share=float(good.sum() / len(points)),
        reverse_kl=reverse_kl(np.bincount(nearest, minlength=num_modes), np.ones(num_modes)),
    )


def reverse_kl(generated: npt.NDArray[np.generic], data: npt.NDArray[np.generic]) -> float:
    """KL(generated || data) in nats of two histograms [K] of any totals.

    Infinite where the generated one is empty, or has something where the data has nothing.
    """
    q = np.asarray(generated, dtype=np.float64)
    p = np.asarray(data, dtype=np.float64)
    if q.sum() == 0 or (q[p == 0] > 0).any():
        return math.inf
    q, p = q / q.sum(), p / p.sum()
    there = q > 0
    return max(0.0, float((q[there] * np.log(q[there] / p[there])).sum()))
