"""Clouds: the points that a game learns, made or drawn, and how well G's points cover them.

A named mixture is the dataset of that name. Every other cloud is the dataset `points`, so that a
training on the same points as a CSV file has the same batches.
"""

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.cluster.vq import kmeans2
from scipy.spatial import cKDTree

from models.networks.plane import SPAN
from training.data import DataConfig, ImageSet, load
from training.data.sources.mixtures import MIXTURES
from training.data.sources.points import raw_of
from training.errors import ConfigError
from training.evaluation.metrics.modes import modes, reverse_kl

Floats = npt.NDArray[np.float64]

DRAWN = "drawn"
"""The cloud whose points are a parameter of the game."""
NAMED = tuple(MIXTURES)
MAX_DRAWN = 1000
_NUM_POINTS = 20_000
_SEED = 0
_NUM_CELLS = 16
_GOOD_QUANTILE = 0.99
_LEVELS = 65_535


def _spiral(rng: np.random.Generator) -> Floats:
    turn = np.sqrt(rng.random(_NUM_POINTS)) * 3 * np.pi + 0.5
    arm = np.stack([turn * np.cos(turn), turn * np.sin(turn)], 1) / (3 * np.pi)
    return arm + 0.02 * rng.standard_normal(arm.shape)


def _two_moons(rng: np.random.Generator) -> Floats:
    angle = np.pi * rng.random(_NUM_POINTS)
    upper = np.stack([np.cos(angle), np.sin(angle)], 1)
    lower = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], 1)
    chosen = rng.random(_NUM_POINTS)[:, None] < 0.5
    return np.where(chosen, upper, lower) + 0.05 * rng.standard_normal((_NUM_POINTS, 2))


def _uneven(rng: np.random.Generator) -> Floats:
    """Eight modes of the ring whose weights halve from one to the next."""
    weights = 0.5 ** np.arange(8)
    centres = MIXTURES["ring-8"].centres
    chosen = rng.choice(8, size=_NUM_POINTS, p=weights / weights.sum())
    found: Floats = centres[chosen] + 0.02 * rng.standard_normal((_NUM_POINTS, 2))
    return found


def _line(rng: np.random.Generator) -> Floats:
    along = 2 * rng.random(_NUM_POINTS) - 1
    return np.stack([along, 0.5 * along], 1) + 0.01 * rng.standard_normal((_NUM_POINTS, 2))


_MADE: dict[str, Callable[[np.random.Generator], Floats]] = {
    "spiral": _spiral,
    "two-moons": _two_moons,
    "uneven": _uneven,
    "line": _line,
}
CLOUDS = (*NAMED, *_MADE, DRAWN)


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How well generated points cover a cloud."""

    caught: int
    """Modes, or cells of a cloud without modes, that at least one good point lies in."""
    of: int
    """How many there are."""
    good_share: float
    """Share of points where the data is: within 3 sigma of a mode, or as near to a point of the
    cloud as all but one in a hundred of its own points are."""
    reverse_kl: float
    """KL(generated || data) over the modes or cells, in nats."""


class Cloud:
    """The data of one game."""

    def __init__(self, name: str, points: str = "") -> None:
        """name: entry of CLOUDS. points: packed, of the cloud DRAWN.

        Raises:
            ConfigError, DataError: the points can't be read, or are all one.
        """
        self.name = name
        self._mixture = MIXTURES.get(name)
        if self._mixture is not None:
            config = DataConfig(dataset=name, resolution="2x1", conditional=False)
            self.image_set = load(config)
            self.coordinates = np.zeros((0, 2))
        else:
            rng = np.random.default_rng(_SEED)
            self.coordinates = unpacked(points) if name == DRAWN else _MADE[name](rng)
            raw = raw_of(self.coordinates)
            assert raw.exact is not None
            exact = torch.from_numpy(raw.exact)
            images = torch.from_numpy(raw.images)
            self.image_set = ImageSet("points", images, None, None, "", (), exact=exact)
            self._seen = exact.numpy().reshape(-1, 2).astype(np.float64)
            self._cells, self._own, self._tree, self._reach = _cells(self._seen)

    @property
    def modes(self) -> Floats:
        """The centres of the modes, [K, 2] as networks see points; none where they aren't known."""
        mixture = self._mixture
        return np.zeros((0, 2)) if mixture is None else mixture.centres / mixture.unit

    def csv(self) -> str:
        """The points as a CSV file of x and y, which reads back to the same bits."""
        return "".join(f"{x!r},{y!r}\n" for x, y in self.coordinates.tolist())

    def coverage(self, points: npt.NDArray[np.float32]) -> Coverage:
        """Compares generated points with the data. points: [N, 2] as networks see them."""
        if self._mixture is not None:
            found = modes(points * self._mixture.unit, self._mixture)
            num = len(self._mixture.centres)
            return Coverage(
                caught=found.caught,
                of=num,
                good_share=found.good_share,
                reverse_kl=found.reverse_kl,
            )
        finite = points[np.isfinite(points).all(1)].astype(np.float64)
        near = self._tree.query(finite)[0] <= self._reach
        cells = np.linalg.norm(finite[:, None] - self._cells, axis=2).argmin(1)
        num = len(self._cells)
        return Coverage(
            caught=len(np.unique(cells[near])),
            of=num,
            good_share=float(near.sum() / max(len(points), 1)),
            reverse_kl=reverse_kl(np.bincount(cells, minlength=num), self._own),
        )


def _cells(seen: Floats) -> tuple[Floats, npt.NDArray[np.int64], cKDTree, float]:
    """Centres of a cloud's cells, its points in each, and how near its points are to others."""
    some = seen[:: max(1, len(seen) // 4000)]
    num = min(_NUM_CELLS, len(np.unique(some, axis=0)))
    centres, _ = kmeans2(some, num, minit="++", rng=_SEED, missing="warn")
    own = np.bincount(np.linalg.norm(some[:, None] - centres, axis=2).argmin(1), minlength=num)
    centres, own = centres[own > 0], own[own > 0]
    tree = cKDTree(some)
    reach = float(np.quantile(tree.query(some, k=2)[0][:, 1], _GOOD_QUANTILE))
    return centres, own, tree, max(reach, 1e-3)


def packed(points: Floats) -> str:
    """Points [N, 2] in [-SPAN, SPAN] as text for a URL: 16 bits a coordinate, base64."""
    levels = np.clip(np.round((points / SPAN + 1) / 2 * _LEVELS), 0, _LEVELS).astype("<u2")
    return base64.urlsafe_b64encode(levels.tobytes()).decode().rstrip("=")


def unpacked(text: str) -> Floats:
    """Reads the points of `packed`, [N, 2].

    Raises:
        ConfigError: the text is none, or of too few or too many points.
    """
    try:
        content = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        levels = np.frombuffer(content, "<u2").reshape(-1, 2)
    except (binascii.Error, ValueError):
        raise ConfigError(
            f"points is {text[:20]!r}, allowed: pairs of 16 bits in base64; draw them on the page"
        ) from None
    if not 2 <= len(levels) <= MAX_DRAWN:
        raise ConfigError(
            f"points is {len(levels)} points, allowed: 2 .. {MAX_DRAWN}; draw more, or fewer"
        )
    return (levels.astype(np.float64) / _LEVELS * 2 - 1) * SPAN
