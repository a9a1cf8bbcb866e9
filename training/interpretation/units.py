"""Which units of a generator carry which concept, and what happens without them.

After GAN Dissection (Bau et al. 2019, arXiv:1811.10597), for any family and without a network that
segments. A unit agrees with a concept as its map, above the best of some thresholds, agrees with
where the concept is: the information quality ratio I(unit; concept) / H(unit, concept), in [0, 1].
What a set of units does is measured by switching it off, beside random sets of its size.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from models.bundle.generator import Images
from training.export.onnx_graphs import to_bytes
from training.interpretation.artifacts import Artifact, Real, find_artifacts
from training.interpretation.concepts import ink, measure
from training.interpretation.dissected import BATCH, Dissected, seeds_of
from training.interpretation.effects import Effect, measured_effects
from training.interpretation.unit_layers import Layer, unit_layers, watched

MIN_OVERLAP = 0.05
"""The least intersection over union of a unit with a place: below it, a unit isn't there."""
_QUANTILES = np.linspace(0.5, 0.95, 10)
_QUADRANTS = ("ink", "ink upper left", "ink upper right", "ink lower left", "ink lower right")

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Units:
    """What was found."""

    layers: list[Layer]
    concepts: tuple[str, ...]
    agreement: Values
    """[units, concepts]: information quality ratio; 0 where the overlap is too small."""
    effects: tuple[Effect, ...]
    """By p, the smallest first."""
    artifacts: tuple[Artifact, ...] | None = None
    """Units without which images are closer to real ones; None where there were no real images."""


def find_units(
    subject: Dissected, *, num_images: int = 256, set_size: int = 4, real: Real | None = None
) -> Units:
    """Finds what the units agree with, and what sets of them do.

    Args:
        subject: the generator.
        num_images: images of each of the two measurements, which have no seed in common.
        set_size: units of a set.
        real: what images should be like, for artifacts; None looks for none.
    """
    own = seeds_of(0, num_images) if subject.seeds is None else subject.seeds
    layers = unit_layers(subject.G, *subject.inputs(own[:1]))
    if not layers:
        return Units(layers=[], concepts=(), agreement=np.zeros((0, 0)), effects=())
    maps, images = _look(subject, layers, own)
    places = _places(images) | {name: mask for name, mask in subject.masks.items()}
    measured = measure(images, subject.classes)
    columns = [_of_place(maps, mask) for mask in places.values()]
    columns += [_of_measure(maps, values) for values in measured.values()]
    agreement = np.stack(columns, axis=1)
    effects = measured_effects(
        subject,
        layers,
        tuple(measured),
        agreement[:, len(places) :],
        num_images=num_images,
        set_size=set_size,
    )
    artifacts = None if real is None else find_artifacts(subject, layers, real)
    return Units(
        layers=layers,
        concepts=(*places, *measured),
        agreement=agreement,
        effects=effects,
        artifacts=artifacts,
    )


def quality_ratio(
    one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]
) -> tuple[Values, Values]:
    """I(a; b) / H(a, b), and intersection over union, of each row of one [K, n] with other [n]."""
    both = (one & other).sum(1).astype(np.float64)
    a, b, n = one.sum(1), other.sum(), other.size
    joint = np.stack([both, a - both, b - both, n - a - b + both]) / n
    entropy = _entropy(joint)
    parts = _entropy(np.stack([a, n - a]) / n) + _entropy(np.array([[b], [n - b]]) / n)
    ratio = np.divide(parts - entropy, entropy, out=np.zeros(len(a)), where=entropy > 1e-12)
    union = a + b - both
    overlap = np.divide(both, union, out=np.zeros(len(a)), where=union > 0)
    return np.maximum(ratio, 0), overlap


@torch.no_grad()
def _look(
    subject: Dissected, layers: list[Layer], seeds: npt.NDArray[np.uint64]
) -> tuple[list[npt.NDArray[np.float32]], Images]:
    """The maps [N, C, h, w] of each layer, and the images [N, H, W, C]."""
    maps: list[list[Tensor]] = [[] for _ in layers]
    images = []
    with watched(subject.G, layers) as seen:
        for start in range(0, len(seeds), BATCH):
            images.append(to_bytes(subject.G(*subject.inputs(seeds[start : start + BATCH]))))
            for kept, layer in zip(maps, layers, strict=True):
                kept.append(seen[layer.module].float())
    return [torch.cat(each).numpy() for each in maps], torch.cat(images).numpy()


def _places(images: Images) -> dict[str, npt.NDArray[np.bool_]]:
    """Where the ink is, and where in each quadrant: [N, H, W]."""
    whole = ink(images) > 0.5
    height, width = whole.shape[1] // 2, whole.shape[2] // 2
    upper = (np.arange(whole.shape[1]) < height)[:, None]
    left = (np.arange(whole.shape[2]) < width)[None]
    parts = (np.ones_like(upper & left), upper & left, upper & ~left, ~upper & left, ~upper & ~left)
    return {name: whole & part for name, part in zip(_QUADRANTS, parts, strict=True)}


def _of_place(maps: list[npt.NDArray[np.float32]], where: npt.NDArray[np.bool_]) -> Values:
    """How far each unit's map agrees with where something is, over all pixels."""
    found = []
    for each in maps:
        size = each.shape[2:]
        pooled = functional.adaptive_avg_pool2d(torch.from_numpy(where[:, None]).float(), size)
        mask = (pooled[:, 0] > 0.5).numpy().ravel()
        flat = each.transpose(1, 0, 2, 3).reshape(each.shape[1], -1)
        found.append(_best(flat, mask, least=MIN_OVERLAP))
    return np.concatenate(found)


def _of_measure(maps: list[npt.NDArray[np.float32]], values: Values) -> Values:
    """How far each unit's mean agrees with a measure that is above its median, over images."""
    above = values > np.median(values)
    return np.concatenate([_best(each.mean((2, 3)).T, above, least=0) for each in maps])


def _best(flat: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_], *, least: float) -> Values:
    """The largest ratio over thresholds, of each row [K, n]; 0 below the least overlap."""
    best = np.zeros(len(flat))
    for quantile in _QUANTILES:
        active = flat > np.quantile(flat, quantile, axis=1, keepdims=True)
        ratio, overlap = quality_ratio(active, mask)
        best = np.maximum(best, np.where(overlap > least, ratio, 0))
    return best


def _entropy(p: Values) -> Values:
    """In bits, over the first axis."""
    logarithm = np.log2(p, out=np.zeros_like(p, dtype=np.float64), where=p > 0)
    found: Values = -(p * logarithm).sum(0)
    return found
