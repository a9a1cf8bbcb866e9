"""What an evaluation's figures mean, in a sentence, and what to try next.

Each figure is placed between that of noise (0 %) and that of real images (100 %), and the worst one
is named: the best ones flatter. Frechet distances shrink by factors and are compared as logarithms,
since on a straight scale every model that makes anything but noise is past 90 %. This module knows
no network and reads no file.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from models.bundle.manifest import Metric

FEW_IMAGES = 3000
_REAL = 0.95  # from here on the worst figure can hardly be told from real images
_GOOD = 0.85
_HALF = 0.6
_NEAR_NOISE = 0.25
_COPIES = 0.05  # share of memorised images

_LOGARITHMIC = ("frechet_distance", "fid")
_LINEAR = ("precision", "recall", "coverage", "label_agreement")
_MEANING = {
    "frechet_distance": "the images as a whole are not yet like the data",
    "fid": "the images as a whole are not yet like the data",
    "precision": "part of the images don't look like real ones",
    "recall": "part of the data is never made",
    "coverage": "part of the data is never made",
    "label_agreement": "part of the images don't show the class that was asked for",
}
_LONGER = "train longer (--total-kimg)"
_REMEDIES = {
    "frechet_distance": f"{_LONGER}, or a larger network",
    "fid": f"{_LONGER}, or a larger network",
    "precision": f"{_LONGER}, or a larger network; in use a truncation below 1 trades variety for "
    "better images, where the network has a mapping",
    "recall": "a larger --batch-size, or a larger network",
    "coverage": "a larger --batch-size, or a larger network",
    "label_agreement": f"{_LONGER}, or look at whether the classes can be told apart",
}


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What else the advice depends on."""

    num_images: int
    """Images of the data."""
    augmented: bool
    """True where D sees them changed at random."""
    is_stale: bool = False
    """True where the images stopped becoming better during the training."""


def share(metric: Metric) -> float | None:
    """The figure's share of the way from noise (0) to real images (1), clipped to 0 .. 1.

    None for a figure that has no such way, or where noise has more than half of what real images
    have.
    """
    floor, ceiling = metric.protocol.get("floor"), metric.protocol.get("ceiling")
    if floor is None or ceiling is None or not math.isfinite(metric.value):
        return None
    if metric.name in _LOGARITHMIC:
        least = max(floor, ceiling * 1e-6)
        if ceiling < 2 * least:
            return None
        way = math.log(ceiling / least)
        part = math.log(ceiling / max(metric.value, least)) / way
    elif metric.name in _LINEAR:
        # Where noise has most of what real images have, as recall on a random network's features
        # may, the way is so short that a good model looks far from its end.
        if ceiling > floor / 2:
            return None
        part = (metric.value - ceiling) / (floor - ceiling)
    else:
        return None
    return min(1.0, max(0.0, part))


def verdict(metrics: Sequence[Metric], circumstances: Circumstances) -> list[str]:
    """Sentences that say what the figures mean and what to try next; empty without figures."""
    shares = {m.name: found for m in metrics if (found := share(m)) is not None}
    if not shares:
        return []
    name = min(shares, key=lambda name: shares[name])
    worst = shares[name]
    best = max(shares, key=lambda name: shares[name])
    lines = [
        f"verdict: {_grade(worst)}. The worst figure, {name}, is {worst:.0%} of the way from noise "
        f"to real images" + (f"; the best, {best}, is {shares[best]:.0%}" if best != name else "")
    ]
    if worst < _REAL:
        lines[0] += f": {_MEANING[name]}"
    lines.append(f"to try next: {_next(name, worst, metrics, circumstances)}")
    return [f"{line}." for line in lines]


def advice_on_data(circumstances: Circumstances) -> list[str]:
    """A line before the training where the data is so little that D learns it by heart."""
    if circumstances.num_images >= FEW_IMAGES or circumstances.augmented:
        return []
    return [
        f"few images ({circumstances.num_images:,}): add --augment.policy diffaugment, or D soon "
        "knows them by heart and the images stop becoming better"
    ]


def _grade(worst: float) -> str:
    if worst >= _REAL:
        return "by these figures hardly to be told from real images"
    if worst >= _GOOD:
        return "good, and not yet like real images"
    if worst >= _HALF:
        return "recognisable, with clear faults"
    if worst >= _NEAR_NOISE:
        return "poor"
    return "hardly better than noise"


def _next(name: str, worst: float, metrics: Sequence[Metric], circumstances: Circumstances) -> str:
    memorised = next((metric.value for metric in metrics if metric.name == "memorised"), 0.0)
    few = circumstances.num_images < FEW_IMAGES and not circumstances.augmented
    words = []
    if memorised > _COPIES:
        words.append(f"{memorised:.0%} of the images are copies: more images, or augmentation")
    if few:
        words.append(
            f"few images ({circumstances.num_images:,}): add --augment.policy diffaugment, or "
            "collect more"
        )
    if worst >= _REAL and not words:
        return "look at the samples: figures of these features don't see everything"
    if circumstances.is_stale:
        words.append(
            "the images stopped becoming better during the training, so a longer one is likely to "
            "gain nothing: more images, augmentation, or other options"
        )
    elif worst < _REAL:
        words.append(_REMEDIES[name])
    return "; ".join(words)
