"""Signs: how each known failure of a training shows, a registry of small functions.

A sign reads the vitals of a tick (`training.stability.vitals`) beside those of the ticks before,
and says how far things have gone; beyond its threshold for a whole window of ticks, it is an alarm
(`training.stability.streaks`). A new failure is one more entry. Knows no network, and not what is
done about it.
"""

import math
from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

Vitals = dict[str, float]
"""Figures of one tick by name, cur_nimg among them; a figure that makes no sense is left out."""
History = Sequence[Vitals]
"""Of every tick, the newest last. Checkpoints hold it: a resumed training sees what it would have
seen."""
_MIN_PAST = 3  # ticks before a figure is compared with its own past
_GROWING = ("gradient_G", "gradient_D", "weights_G", "weights_D", "logits")
_FLOOR = 10.0


@dataclass(kw_only=True)
class Past:
    """The ticks before one, as far as signs need them: each is taken in once, not gone through."""

    last: Vitals | None = None
    """The tick just before."""
    num: int = 0
    """Ticks taken in."""
    ordered: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in _GROWING})
    """Finite values of figures that are compared with their past, ascending."""

    def take_in(self, vitals: Vitals) -> None:
        """One more tick has gone by."""
        self.last = vitals
        self.num += 1
        for name, values in self.ordered.items():
            if math.isfinite(vitals[name]):
                insort(values, vitals[name])

    def usual(self, name: str) -> float | None:
        """A figure's own median before; None where that is too few ticks."""
        values = self.ordered[name]
        if self.num < _MIN_PAST or not values:
            return None
        return (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2


@dataclass(frozen=True, kw_only=True)
class Sign:
    """An entry of SIGNS."""

    figure: Callable[[Vitals, Past], float | None]
    """The figure at a tick with such a past; None where it says nothing here."""
    alarming: Literal["above", "below"]
    """On which side of the threshold the failure is."""
    threshold: float
    """Beyond it the sign shows."""
    window: int
    """Ticks in a row that it must show before it is an alarm."""
    warm_up: float
    """Share of the training in which it means nothing yet."""
    after_nimg: int = 5000
    """Images below which it means nothing yet, however short the training: G starts as grey."""
    says: str
    """What the figure is, for a message."""
    means: str
    """What goes wrong."""
    advice: str
    """What a person can do."""
    remedies: tuple[str, ...]
    """Entries of REMEDIES in the order in which a rescue tries them."""
    cost: str
    """What the looking costs."""

    def shows(self, value: float | None) -> bool:
        """True where a figure is beyond the threshold, or not a number at all."""
        if value is None:
            return False
        if not math.isfinite(value):
            return True
        return value > self.threshold if self.alarming == "above" else value < self.threshold


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """A sign that showed for its whole window."""

    failure: str
    """Entry of SIGNS."""
    value: float
    """Its figure at the last tick."""
    since_nimg: int
    """Images shown at the first tick of those in a row that showed it."""
    cur_nimg: int
    """Images shown at the last."""
    player: Literal["G", "D"] | None = None
    """Whose lr is concerned, where it is one player's."""
    is_new: bool = True
    """False from the second tick on."""

    def __str__(self) -> str:
        sign = SIGNS[self.failure]
        return (
            f"{self.failure} at {self.cur_nimg / 1000:.3f} kimg, since "
            f"{self.since_nimg / 1000:.3f}: {sign.says} is {self.value:.4g}, {sign.alarming} "
            f"{sign.threshold:g}; {sign.means}"
        )


def collapse(now: Vitals, _past: Past) -> float | None:
    """Share of variety that is left: of the data's mean distance, and of images without a twin."""
    return min(now["spread"], 1 - now["twins"])


def saturation(now: Vitals, _past: Past) -> float | None:
    """Share of images, or pairs, that D judges right with |logit| > 4.6."""
    return now.get("sure")


def vanishing(now: Vitals, past: Past) -> float | None:
    """What is left of G's gradient: of its own median before, or of the slope at D's logits.

    0 where G's weights haven't moved at all since the last tick.
    """
    if past.last is not None and now["weights_G"] == past.last["weights_G"]:
        return 0.0
    left = [now["slope"]]
    if (usual := past.usual("gradient_G")) is not None:
        left.append(now["gradient_G"] / usual if usual else 1.0)
    return min(left)


def growth(now: Vitals, past: Past) -> dict[str, float]:
    """By what factor gradients, logits and weights are above their own median before, or 10."""
    return {name: now[name] / max(_FLOOR, past.usual(name) or 0.0) for name in _GROWING}


def divergence(now: Vitals, past: Past) -> float | None:
    """The largest growth; see there."""
    return max(growth(now, past).values())


def oscillation(now: Vitals, _past: Past) -> float | None:
    """How periodic the losses are from round to round; see `training.stability.vitals.swing`."""
    return now.get("swing")


def overfitting(now: Vitals, _past: Past) -> float | None:
    """r_t = E[sign D(real)] on training images (Karras et al. 2020, eq. 1)."""
    return now.get("r_t")


def memorisation(now: Vitals, _past: Past) -> float | None:
    """Share of G's images that are as near to a training image as only its copies are."""
    return now.get("copied")


def grown(now: Vitals, past: Past) -> Literal["G", "D"]:
    """The player whose figures have grown most."""
    factors = growth(now, past)
    worst = max(factors, key=lambda name: factors[name])
    return "G" if worst.endswith("_G") else "D"


_AT_TICKS = "one forward pass of 128 images of each kind a tick, shared by all signs"

SIGNS: dict[str, Sign] = {
    "divergence": Sign(
        figure=divergence,
        alarming="above",
        threshold=100.0,
        window=1,
        warm_up=0.0,
        after_nimg=0,
        says="growth of a gradient, the logits or the weights over their own median, or over 10",
        means="steps are too large to come down from",
        advice="lower --optim-D.lr and --optim-G.lr, or add --regularizers r1=1",
        remedies=("lower-lr", "lower-lr-of-both", "raise-gamma"),
        cost="norms of the weights, once a tick; what is not finite is seen at every step",
    ),
    "vanishing": Sign(
        figure=vanishing,
        alarming="below",
        threshold=0.01,
        window=2,
        warm_up=0.05,
        after_nimg=0,
        says="what is left of G's gradient",
        means="G learns nothing any more",
        advice="take --objective non-saturating, add --regularizers r1=1, or lower --optim-D.lr",
        remedies=("raise-gamma", "lower-lr-of-D"),
        cost="none: the gradient's norm is metered anyway",
    ),
    "saturation": Sign(
        figure=saturation,
        alarming="above",
        threshold=0.95,
        window=3,
        warm_up=0.1,
        says="share of images that D is sure of (|logit| > 4.6)",
        means="D has won, and its judgement tells G little",
        advice="add --regularizers r1=1, raise its weight, or lower --optim-D.lr",
        remedies=("raise-gamma", "lower-lr-of-D"),
        cost=_AT_TICKS,
    ),
    "collapse": Sign(
        figure=collapse,
        alarming="below",
        threshold=0.1,
        window=3,
        warm_up=0.2,
        says="variety left in G's images (1 is the data's)",
        means="G makes the same few images whatever the latent",
        advice="raise the weight of r1 and r2, or lower --optim-G.lr",
        remedies=("raise-gamma", "lower-lr-of-both"),
        cost=f"{_AT_TICKS}; distances of 128 images at 16x16",
    ),
    "oscillation": Sign(
        figure=oscillation,
        alarming="above",
        threshold=0.6,
        window=3,
        warm_up=0.1,
        says="height of the first peak of the losses' autocorrelation",
        means="the players circle around each other instead of settling",
        advice="raise the weight of r1 and r2, or lower both lr",
        remedies=("raise-gamma", "lower-lr-of-both"),
        cost="keeps the last scalars of each step; an autocorrelation a tick",
    ),
    "overfitting": Sign(
        figure=overfitting,
        alarming="above",
        threshold=0.97,
        window=4,
        warm_up=0.2,
        says="r_t = E[sign D(real)]",
        means="D knows the training images by heart",
        advice="add --augment.policy ada --augment.target 0.6, more images, or r1",
        remedies=("turn-ada-on", "raise-gamma"),
        cost=_AT_TICKS,
    ),
    "memorisation": Sign(
        figure=memorisation,
        alarming="above",
        threshold=0.5,
        window=2,
        warm_up=0.1,
        says="share of G's images that are copies of training images",
        means="G repeats what it was shown",
        advice="add images, or --augment.policy ada --augment.target 0.6; look for duplicates",
        remedies=("turn-ada-on", "raise-gamma"),
        cost="distances of 128 images to 65,536 training images at most, at 8x8, a tick",
    ),
}
