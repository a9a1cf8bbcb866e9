"""Mixtures of Gaussians in the plane as datasets: points instead of images, whose modes are known.

They are those of Metz et al. 2017 and Srivastava et al. 2017 (VEEGAN), at the sizes of Lin et al.
2018 (PacGAN). A point is an image of one row and two grey values, its coordinates. Networks see
them exactly, in units of their standard deviation; bytes, in which models give them to others, go
from -SPAN to SPAN of these units.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from torch import Tensor

from models.networks.plane import SPAN
from training.data.sources.registry import ImageRequest, Raw, dataset

Floats = npt.NDArray[np.float64]

NUM_POINTS = 100_000
_SEED = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Mixture:
    """Gaussians in the plane, of equal width and weight."""

    name: str
    centres: Floats
    """[K, 2] float64."""
    sigma: float

    @property
    def unit(self) -> float:
        """Standard deviation of a coordinate of the centres, about that of the points."""
        return float(self.centres.std())

    def sample(self, num: int, rng: np.random.Generator) -> Floats:
        """Draws points of the mixture, [num, 2] float64."""
        chosen = self.centres[rng.integers(len(self.centres), size=num)]
        return chosen + self.sigma * rng.standard_normal((num, 2))

    def coordinates(self, images: Tensor | npt.NDArray[np.uint8]) -> Floats:
        """Points [N, 2] float64 of images of two bytes, such as [N, 1, 1, 2] uint8."""
        found: Floats = np.asarray(images, dtype=np.float64).reshape(-1, 2) / 127.5 - 1
        return found * (SPAN * self.unit)


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


def _load(mixture: Mixture, request: ImageRequest) -> Raw:
    """The same 100,000 points every time."""
    points = mixture.sample(NUM_POINTS, np.random.default_rng(_SEED)) / mixture.unit
    exact = points.astype(np.float32).reshape(-1, 1, 1, 2)
    rounded = np.clip(np.round((exact / SPAN + 1) * 127.5), 0, 255).astype(np.uint8)
    return Raw(images=rounded, exact=exact)


for _mixture in MIXTURES.values():
    dataset(_mixture.name, labelled=False, points=True, built_in=True)(partial(_load, _mixture))
