"""What a concept loses where its units are off, beside random sets of as many units.

A random set has as many units of each layer as the concept's own: a unit of coarse maps moves
more than one of fine maps, whatever it stands for.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from training.interpretation.concepts import measure
from training.interpretation.dissected import Dissected, ablated, seeds_of
from training.interpretation.unit_layers import Layer, num_units

NUM_RANDOM = 20

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


def like(
    units: Sequence[int], layers: Sequence[Layer], rng: np.random.Generator
) -> tuple[int, ...]:
    """A random set of as many units of each layer as `units` has, each once."""
    found: list[int] = []
    for start, num, wanted in _by_layer(units, layers):
        found += (start + rng.choice(num, wanted, replace=False)).tolist()
    return tuple(found)


def _by_layer(units: Sequence[int], layers: Sequence[Layer]) -> list[tuple[int, int, int]]:
    """Of each layer its first unit, its number of units, and how many of `units` are its own."""
    starts = np.cumsum([0, *(layer.channels for layer in layers)]).tolist()
    where = Counter(np.searchsorted(starts, list(units), side="right").tolist())
    return [(starts[i], layer.channels, where[i + 1]) for i, layer in enumerate(layers)]


def measured_effects(
    subject: Dissected,
    layers: list[Layer],
    concepts: tuple[str, ...],
    agreement: Values,
    *,
    num_images: int,
    set_size: int,
) -> tuple[Effect, ...]:
    """The effect of each concept's own set of units, on seeds that chose none of them.

    Args:
        subject: the generator.
        layers: of its units.
        concepts: what is measured.
        agreement: [units, concepts]; those that agree most are the concept's own.
        num_images: images of the measurement; the seeds before them chose the units.
        set_size: units of a set.
    """
    seeds = seeds_of(num_images, num_images)
    size = min(set_size, num_units(layers))
    rng = np.random.default_rng(0)
    whole = measure(ablated(subject, layers, seeds, ()), subject.classes)
    spread = {name: max(float(whole[name].std()), 1e-12) for name in concepts}

    def lost(units: Sequence[int]) -> dict[str, float]:
        without = measure(ablated(subject, layers, seeds, units), subject.classes)
        return {
            name: float((whole[name] - without[name]).mean()) / spread[name] for name in concepts
        }

    # Concepts whose sets are spread alike over the layers share their random sets.
    drawn: dict[tuple[int, ...], list[dict[str, float]]] = {}
    found = []
    for column, name in enumerate(concepts):
        units = tuple(int(u) for u in np.argsort(-agreement[:, column], kind="stable")[:size])
        spread_over = tuple(wanted for _, _, wanted in _by_layer(units, layers))
        if spread_over not in drawn:
            drawn[spread_over] = [lost(like(units, layers, rng)) for _ in range(NUM_RANDOM)]
        values = np.array([each[name] for each in drawn[spread_over]])
        found.append((name, units, *against_random(lost(units)[name], values)))
    corrected = holm([each[-1] for each in found])
    effects = [
        Effect(concept=name, units=units, effect=effect, low=low, high=high, p=p)
        for (name, units, effect, low, high, _), p in zip(found, corrected, strict=True)
    ]
    return tuple(sorted(effects, key=lambda each: (each.p, -abs(each.effect))))
