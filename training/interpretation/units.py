"""Which units of a generator carry which concept, and what happens without them.

After GAN Dissection (Bau et al. 2019, arXiv:1811.10597), for any family and without a network that
segments. A unit agrees with a concept as its map, above the best of some thresholds, agrees with
where the concept is: the information quality ratio I(unit; concept) / H(unit, concept), in [0, 1].
What a set of units does is measured by switching it off, beside random sets of its size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional

from models.bundle.generator import Images
from models.latents import latents
from training.export.onnx_graphs import to_bytes
from training.interpretation.concepts import Concept, ink, measure
from training.interpretation.unit_layers import (
    Layer,
    masked,
    num_units,
    unit_layers,
    watched,
)

MIN_OVERLAP = 0.05
"""The least intersection over union of a unit with a place: below it, a unit isn't there."""
NUM_RANDOM = 20
_FIRST_SEED = 2**33
_QUANTILES = np.linspace(0.5, 0.95, 10)
_BATCH = 32
_QUADRANTS = ("ink", "ink upper left", "ink upper right", "ink lower left", "ink lower right")

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What a concept loses, in standard deviations of it, where its units are switched off."""

    concept: str
    units: tuple[int, ...]
    """The set: those that agree with the concept most."""
    effect: float
    """E[c(x)] - E[c(x without them)], less the mean of the same over random sets."""
    low: float
    high: float
    """The 95 % interval in which a random set's would lie around it."""
    p: float
    """That a random set does as much; corrected by Holm for all concepts."""


@dataclass(frozen=True, kw_only=True)
class Units:
    """What was found."""

    layers: list[Layer]
    concepts: tuple[str, ...]
    agreement: Values
    """[units, concepts]: information quality ratio; 0 where the overlap is too small."""
    effects: tuple[Effect, ...]
    """By p, the smallest first."""


@dataclass(frozen=True, kw_only=True)
class Dissected:
    """A generator whose units are looked at."""

    G: nn.Module
    """In evaluation mode, on the CPU."""
    z_dim: int
    num_classes: int
    classes: Mapping[str, Concept]
    masks: Mapping[str, npt.NDArray[np.bool_]]
    """Concepts that the user gives: where each is, [N, H, W], on the images of `seeds`."""
    seeds: npt.NDArray[np.uint64] | None = None

    def inputs(self, seeds: npt.NDArray[np.uint64]) -> tuple[Tensor, Tensor | None]:
        """Latents and labels of seeds; a seed's label is seed % num_classes."""
        some = next(self.G.parameters())
        z = torch.from_numpy(latents(seeds, self.z_dim)).to(some.dtype)
        if not self.num_classes:
            return z, None
        return z, torch.from_numpy((seeds % np.uint64(self.num_classes)).astype(np.int64))


def find_units(subject: Dissected, *, num_images: int = 256, set_size: int = 4) -> Units:
    """Finds what the units agree with, and what sets of them do.

    Args:
        subject: the generator.
        num_images: images of each of the two measurements, which have no seed in common.
        set_size: units of a set.
    """
    own = _seeds(0, num_images) if subject.seeds is None else subject.seeds
    layers = unit_layers(subject.G, *subject.inputs(own[:1]))
    if not layers:
        return Units(layers=[], concepts=(), agreement=np.zeros((0, 0)), effects=())
    maps, images = _look(subject, layers, own)
    places = _places(images) | {name: mask for name, mask in subject.masks.items()}
    measured = measure(images, subject.classes)
    columns = [_of_place(maps, mask) for mask in places.values()]
    columns += [_of_measure(maps, values) for values in measured.values()]
    agreement = np.stack(columns, axis=1)
    effects = _effects(
        subject, layers, tuple(measured), agreement[:, len(places) :], num_images, set_size
    )
    return Units(
        layers=layers,
        concepts=(*places, *measured),
        agreement=agreement,
        effects=effects,
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


def holm(p: Sequence[float]) -> list[float]:
    """Holm's correction (1979) of p-values for their number, in their order."""
    order = np.argsort(p, kind="stable")
    corrected, largest = np.ones(len(p)), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, float(p[index]) * (len(p) - rank)))
        corrected[index] = largest
    return [float(value) for value in corrected]


def against_random(effect: float, random: Values) -> tuple[float, float, float, float]:
    """An effect beside those of random sets: its difference, a 95 % interval, and p.

    The interval is that in which one more random set would lie, by Student's t; a random set's own
    covers 0 in 95 % of cases.
    """
    num = len(random)
    difference = float(effect - random.mean())
    scale = float(random.std(ddof=1)) * np.sqrt(1 + 1 / num)
    if scale == 0:
        return difference, difference, difference, 1.0 if difference == 0 else 0.0
    reach = float(stats.t.ppf(0.975, num - 1)) * scale
    p = 2 * float(stats.t.sf(abs(difference) / scale, num - 1))
    return difference, difference - reach, difference + reach, p


def _effects(
    subject: Dissected,
    layers: list[Layer],
    concepts: tuple[str, ...],
    agreement: Values,
    num_images: int,
    set_size: int,
) -> tuple[Effect, ...]:
    """The effect of each concept's own set of units, on seeds that chose none of them."""
    seeds, total = _seeds(num_images, num_images), num_units(layers)
    size = min(set_size, total)
    rng = np.random.default_rng(0)
    whole = measure(_ablated(subject, layers, seeds, ()), subject.classes)
    spread = {name: max(float(whole[name].std()), 1e-12) for name in concepts}

    def lost(units: Sequence[int]) -> dict[str, float]:
        without = measure(_ablated(subject, layers, seeds, units), subject.classes)
        return {
            name: float((whole[name] - without[name]).mean()) / spread[name] for name in concepts
        }

    random = [lost(rng.choice(total, size, replace=False).tolist()) for _ in range(NUM_RANDOM)]
    found = []
    for column, name in enumerate(concepts):
        units = tuple(int(u) for u in np.argsort(-agreement[:, column], kind="stable")[:size])
        values = np.array([each[name] for each in random])
        found.append((name, units, *against_random(lost(units)[name], values)))
    corrected = holm([each[-1] for each in found])
    effects = [
        Effect(concept=name, units=units, effect=effect, low=low, high=high, p=p)
        for (name, units, effect, low, high, _), p in zip(found, corrected, strict=True)
    ]
    return tuple(sorted(effects, key=lambda each: (each.p, -abs(each.effect))))


@torch.no_grad()
def _look(
    subject: Dissected, layers: list[Layer], seeds: npt.NDArray[np.uint64]
) -> tuple[list[npt.NDArray[np.float32]], Images]:
    """The maps [N, C, h, w] of each layer, and the images [N, H, W, C]."""
    maps: list[list[Tensor]] = [[] for _ in layers]
    images = []
    with watched(subject.G, layers) as seen:
        for start in range(0, len(seeds), _BATCH):
            images.append(to_bytes(subject.G(*subject.inputs(seeds[start : start + _BATCH]))))
            for kept, layer in zip(maps, layers, strict=True):
                kept.append(seen[layer.module].float())
    return [torch.cat(each).numpy() for each in maps], torch.cat(images).numpy()


@torch.no_grad()
def _ablated(
    subject: Dissected, layers: list[Layer], seeds: npt.NDArray[np.uint64], units: Sequence[int]
) -> Images:
    """The images of seeds with some units off."""
    modules, images = dict(subject.G.named_modules()), []
    for start in range(0, len(seeds), _BATCH):
        z, label = subject.inputs(seeds[start : start + _BATCH])
        mask = torch.ones(len(z), num_units(layers))
        mask[:, list(units)] = 0
        with masked(modules, layers, mask):
            images.append(to_bytes(subject.G(z, label)))
    found: Images = torch.cat(images).numpy()
    return found


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


def _seeds(start: int, num: int) -> npt.NDArray[np.uint64]:
    return np.arange(_FIRST_SEED + start, _FIRST_SEED + start + num, dtype=np.uint64)
