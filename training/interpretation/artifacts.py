"""Units that spoil images: without them the Frechet distance to real images is smaller.

After GAN Dissection's artifact units (Bau et al. 2019, section 4.3), where people chose them. Here
each unit is switched off in the same images, those that help most are tried again in others, and
one is called an artifact only where the interval of its gain there lies above 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from models.bundle.generator import Images
from training.evaluation.metrics.frechet import moments, of_gaussians
from training.evaluation.metrics.neighbours import shifted
from training.interpretation.dissected import Dissected, ablated, seeds_of
from training.interpretation.unit_layers import Layer, num_units

NUM_TRIED = 8
"""Units that are tried again."""
MAX_SCREENED = 512
"""Units that are looked at; of more, so many are drawn."""
_NUM_RESAMPLED = 60
_START = 2**20  # seeds that the other measurements don't use

Rows = npt.NDArray[np.floating]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Real:
    """Real images, as their features."""

    features: Rows
    """[N, d]."""
    of: Callable[[Images], Rows]
    """The same features of images [N, H, W, C] uint8."""
    num_images: int
    """Images of each measurement; more than d, or a covariance has not full rank."""


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A unit without which images are closer to the real ones."""

    unit: int
    gain: float
    """By how much the Frechet distance falls without it."""
    low: float
    high: float
    """The gain's interval: 95 % for all units that were tried again together (Bonferroni)."""


def find_artifacts(subject: Dissected, layers: list[Layer], real: Real) -> tuple[Artifact, ...]:
    """Finds the artifact units of a generator, the largest gain first."""
    num, total = real.num_images, num_units(layers)
    rng = np.random.default_rng(0)
    screened = np.arange(total)
    if total > MAX_SCREENED:
        screened = np.sort(rng.choice(total, MAX_SCREENED, replace=False))
    first, second = seeds_of(_START, num), seeds_of(_START + num, num)

    def features(seeds: npt.NDArray[np.uint64], units: Sequence[int]) -> Rows:
        return real.of(ablated(subject, layers, seeds, units))

    whole = features(first, ())
    gains = [_gain(real.features, whole, features(first, (unit,))) for unit in screened.tolist()]
    best = [i for i in np.argsort(gains)[::-1][:NUM_TRIED].tolist() if gains[i] > 0]
    whole = features(second, ())
    found = [
        _tried(int(screened[i]), real.features, whole, features(second, (int(screened[i]),)), rng)
        for i in best
    ]
    return tuple(sorted((a for a in found if a.low > 0), key=lambda each: -each.gain))


def _gain(
    real: Rows,
    whole: Rows,
    without: Rows,
    real_weights: Floats | None = None,
    fake_weights: Floats | None = None,
) -> float:
    """The distance of whole images from real ones, less that of the same images without a unit.

    Both have the bias of as many images, which their difference has not.
    """
    near_real, near_whole = shifted(real, whole)
    _, near_without = shifted(real, without)
    r = np.ones(len(real)) if real_weights is None else real_weights
    f = np.ones(len(whole)) if fake_weights is None else fake_weights
    reference = moments(near_real, r)
    before = of_gaussians(*reference, *moments(near_whole, f))
    return before - of_gaussians(*reference, *moments(near_without, f))


def _tried(unit: int, real: Rows, whole: Rows, without: Rows, rng: np.random.Generator) -> Artifact:
    """The gain, and the interval that a bootstrap over images gives; both arms share the draws."""
    gain = _gain(real, whole, without)
    drawn = [
        _gain(real, whole, without, _weights(len(real), rng), _weights(len(whole), rng))
        for _ in range(_NUM_RESAMPLED)
    ]
    reach = float(stats.norm.ppf(1 - 0.025 / NUM_TRIED)) * float(np.std(drawn, ddof=1))
    return Artifact(unit=unit, gain=gain, low=gain - reach, high=gain + reach)


def _weights(num: int, rng: np.random.Generator) -> Floats:
    return rng.multinomial(num, np.full(num, 1 / num)).astype(np.float64)
