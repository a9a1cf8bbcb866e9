"""The registry of detectors: how each known failure of a training is recognised.

A detector computes a figure from the diagnostics of a tick (`training.watchdog.diagnostics`) and of
the ticks before. It fires while the figure is beyond its threshold, and becomes an alarm when it
has fired for a whole window of ticks (`training.watchdog.alarms`). A new failure is one more entry
here and one more name in `training.config.watchdog`.
"""

import math
from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

Diagnostics = dict[str, float]
"""Figures of one tick by name, with cur_nimg; figures that don't apply are missing."""
History = Sequence[Diagnostics]
"""The diagnostics of every tick, the newest last. Checkpoints hold them, so that a resumed training
raises the same alarms."""
_MIN_TICKS = 3  # a figure is compared with its median only after so many ticks
_GROWING = ("gradient_G", "gradient_D", "weights_G", "weights_D", "logits")
_FLOOR = 10.0


@dataclass(kw_only=True)
class Baseline:
    """The earlier ticks of a training, updated tick by tick rather than gone through each time."""

    last: Diagnostics | None = None
    """The last tick."""
    num: int = 0
    """Number of ticks."""
    ordered: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in _GROWING})
    """All finite values, ascending, of the figures that are compared with their median."""

    def add(self, diagnostics: Diagnostics) -> None:
        """Adds a tick."""
        self.last = diagnostics
        self.num += 1
        for name, values in self.ordered.items():
            if math.isfinite(diagnostics[name]):
                insort(values, diagnostics[name])

    def median(self, name: str) -> float | None:
        """The median of a figure over the ticks so far; None after too few ticks."""
        values = self.ordered[name]
        if self.num < _MIN_TICKS or not values:
            return None
        return (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2


@dataclass(frozen=True, kw_only=True)
class Detector:
    """An entry of DETECTORS."""

    figure: Callable[[Diagnostics, Baseline], float | None]
    """Computes the figure of a tick from it and the ticks before; None where it doesn't apply."""
    alarming: Literal["above", "below"]
    """The side of the threshold on which the detector fires."""
    threshold: float
    window: int
    """Ticks in a row at which it must fire to become an alarm."""
    warm_up: float
    """Share of the training at whose start it is ignored."""
    after_nimg: int = 5000
    """Images at the start for which it is ignored in any case: every G starts with grey images."""
    quantity: str
    """The figure in words, for messages."""
    meaning: str
    """What goes wrong in the training, for messages."""
    advice: str
    """What the user can do."""
    remedies: tuple[str, ...]
    """Entries of REMEDIES in the order in which a rescue tries them."""
    cost: str
    """What the detector costs."""

    def fires(self, value: float | None) -> bool:
        """True where a figure is beyond the threshold or not finite; False for None."""
        if value is None:
            return False
        if not math.isfinite(value):
            return True
        return value > self.threshold if self.alarming == "above" else value < self.threshold


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """A detector that fired for its whole window."""

    failure: str
    """Entry of DETECTORS."""
    value: float
    """The figure at the last tick."""
    since_nimg: int
    """Images shown at the first of the ticks in a row."""
    cur_nimg: int
    """Images shown at the last of them."""
    player: Literal["G", "D"] | None = None
    """The player whose learning rate is too large; None where that isn't known."""
    is_new: bool = True
    """True at the first tick of the alarm only."""

    def __str__(self) -> str:
        detector = DETECTORS[self.failure]
        return (
            f"{self.failure} at {self.cur_nimg / 1000:.3f} kimg, since "
            f"{self.since_nimg / 1000:.3f}: {detector.quantity} is {self.value:.4g}, "
            f"{detector.alarming} {detector.threshold:g}; {detector.meaning}"
        )


def collapse(now: Diagnostics, _baseline: Baseline) -> float | None:
    """G's mean distance between images over the data's, or the share of images without a twin.

    The smaller of the two is returned.
    """
    return min(now["spread"], 1 - now["twins"])


def saturation(now: Diagnostics, _baseline: Baseline) -> float | None:
    """Share of images, or pairs, that D classifies correctly with |logit| > 4.6."""
    return now.get("sure")


def indifference(now: Diagnostics, _baseline: Baseline) -> float | None:
    """Standard deviation of D's logits over real and generated images together."""
    return now.get("logit_spread")


def vanishing(now: Diagnostics, baseline: Baseline) -> float | None:
    """G's gradient over its own median, or the slope of G's loss at D's logits.

    The smaller of the two is returned, and 0 where G's weights haven't changed since the last tick.
    """
    if baseline.last is not None and now["weights_G"] == baseline.last["weights_G"]:
        return 0.0
    left = [now["slope"]]
    if (median := baseline.median("gradient_G")) is not None:
        left.append(now["gradient_G"] / median if median else 1.0)
    return min(left)


def growth(now: Diagnostics, baseline: Baseline) -> dict[str, float]:
    """Gradients, logits and weights, each over its own median or over 10 if that is larger.

    Weights have no usual size: those of a layer whose rate is a hundredth are a hundred times as
    large from the start. So without a median yet they are compared with the untrained ones, or
    haven't grown where those were not seen. Afterwards they aren't: weights that exploded before
    the first tick have stood still since.
    """

    def usual(name: str) -> float:
        median = baseline.median(name)
        if median is None and name.startswith("weights") and math.isfinite(now[name]):
            return now.get(f"untrained_{name}", now[name])
        return median or 0.0

    return {name: now[name] / max(_FLOOR, usual(name)) for name in _GROWING}


def divergence(now: Diagnostics, baseline: Baseline) -> float | None:
    """The largest factor by which a gradient, the logits or the weights have grown."""
    return max(growth(now, baseline).values())


def oscillation(now: Diagnostics, _baseline: Baseline) -> float | None:
    """How periodic the losses are from round to round (`diagnostics.periodicity`)."""
    return now.get("swing")


def overfitting(now: Diagnostics, _baseline: Baseline) -> float | None:
    """r_t = E[sign D(real)] on training images (Karras et al. 2020, eq. 1)."""
    return now.get("r_t")


def memorisation(now: Diagnostics, _baseline: Baseline) -> float | None:
    """Share of G's images that are as near to a training image as copies are."""
    return now.get("copied")


def fastest_growing(now: Diagnostics, baseline: Baseline) -> Literal["G", "D"]:
    """The player whose gradient or weights have grown by the largest factor."""
    factors = growth(now, baseline)
    worst = max(factors, key=lambda name: factors[name])
    return "G" if worst.endswith("_G") else "D"


_AT_TICKS = "one forward pass of 128 images of each kind a tick, shared by all detectors"

DETECTORS: dict[str, Detector] = {
    "divergence": Detector(
        figure=divergence,
        alarming="above",
        threshold=100.0,
        window=1,
        warm_up=0.0,
        after_nimg=0,
        quantity="growth of a gradient, the logits or the weights over their median, or over 10",
        meaning="steps are too large to come down from",
        advice="lower --optim-D.lr and --optim-G.lr, or add --regularizers r1=1",
        remedies=("lower-lr", "lower-lr-of-both", "raise-gamma"),
        cost="norms of the weights once a tick; finite values are checked at every step",
    ),
    "vanishing": Detector(
        figure=vanishing,
        alarming="below",
        threshold=0.01,
        window=2,
        warm_up=0.05,
        after_nimg=0,
        quantity="what is left of G's gradient",
        meaning="G learns nothing any more",
        advice="take --objective non-saturating, add --regularizers r1=1, or lower --optim-D.lr",
        remedies=("raise-gamma", "lower-lr-of-D"),
        cost="none: the gradient's norm is metered anyway",
    ),
    "saturation": Detector(
        figure=saturation,
        alarming="above",
        threshold=0.95,
        window=3,
        warm_up=0.1,
        quantity="share of images that D is sure of (|logit| > 4.6)",
        meaning="D has won, and its judgement tells G little",
        advice="add --regularizers r1=1, raise its weight, or lower --optim-D.lr",
        remedies=("raise-gamma", "lower-lr-of-D"),
        cost=_AT_TICKS,
    ),
    "indifference": Detector(
        figure=indifference,
        alarming="below",
        threshold=1e-5,
        window=2,
        warm_up=0.0,
        after_nimg=0,
        quantity="standard deviation of D's logits",
        meaning="D says the same of every image, and G learns nothing from it",
        advice="lower the weight of r1 and r2, or leave out clip and spectral, which may hold D's "
        "weights too small for this network",
        remedies=(),
        cost=_AT_TICKS,
    ),
    "collapse": Detector(
        figure=collapse,
        alarming="below",
        threshold=0.1,
        window=3,
        warm_up=0.2,
        quantity="variety left in G's images (1 is the data's)",
        meaning="G makes the same few images whatever the latent",
        advice="raise the weight of r1 and r2, or lower --optim-G.lr",
        remedies=("raise-gamma", "lower-lr-of-both"),
        cost=f"{_AT_TICKS}; distances of 128 images at 16x16",
    ),
    "oscillation": Detector(
        figure=oscillation,
        alarming="above",
        threshold=0.6,
        window=3,
        warm_up=0.1,
        quantity="height of the first peak of the losses' autocorrelation",
        meaning="the players circle around each other instead of settling",
        advice="raise the weight of r1 and r2, or lower both lr",
        remedies=("raise-gamma", "lower-lr-of-both"),
        cost="keeps the last scalars of each step; an autocorrelation a tick",
    ),
    "overfitting": Detector(
        figure=overfitting,
        alarming="above",
        threshold=0.97,
        window=4,
        warm_up=0.2,
        quantity="r_t = E[sign D(real)]",
        meaning="D knows the training images by heart",
        advice="add --augment.policy ada --augment.target 0.6, more images, or r1",
        remedies=("turn-ada-on", "raise-gamma"),
        cost=_AT_TICKS,
    ),
    "memorisation": Detector(
        figure=memorisation,
        alarming="above",
        threshold=0.5,
        window=2,
        warm_up=0.1,
        quantity="share of G's images that are copies of training images",
        meaning="G repeats what it was shown",
        advice="add images, or --augment.policy ada --augment.target 0.6; look for duplicates",
        remedies=("turn-ada-on", "raise-gamma"),
        cost="distances of 128 images to 65,536 training images at most, at 8x8, a tick",
    ),
}
