"""Differentiable augmentation: real and generated images are changed at random before D sees them.

`augment` is a pure function of (images, seed). It can be differentiated twice, as R1 through it
needs (F.grid_sample can't). `adapt`, ADA's controller, is a pure function of its state. This module
knows no network and no loss.

Geometric augmentations are composed into one affine map and colours into one matrix, as in ADA, so
that pixels are resampled once: bilinearly with mirrored edges, where the paper filters with
wavelets before and after. Flips, quarter turns and whole shifts are exact.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.networks.row_rng import per_row
from training.errors import require, require_number
from training.randomness import key, sent
from training.transforms.augmentation_ops import AUGMENTATIONS, POLICIES, Augmentation, Draws
from training.transforms.filter_bank import filtered, mirrored


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Which random changes are made to the images that D sees, and how often."""

    policy: tuple[str, ...] = ()
    """Augmentations, or a paper's whole set: diffaugment, ada, ada-all or r3gan; none by default.
    NAME=SHARE applies it with that share of the probability, as brightness=0.5."""
    probability: float = 1.0
    """That each is applied to an image; with a target, the most it may come to."""
    target: float = 0.0
    """E[sign D(real)] that the probability, from 0 on, is adapted to (0.6); 0 keeps it fixed."""
    speed_kimg: float = 500.0
    """Thousands of images in which it can go from 0 to 1."""
    interval: int = 4
    """Steps of D from one adaptation to the next; they go by the mean of E[sign D(real)] since."""

    def __post_init__(self) -> None:
        """Refuses unknown names and numbers out of range."""
        known = ", ".join([*POLICIES, *AUGMENTATIONS])
        for text in self.policy:
            name, _, number = text.partition("=")
            is_known = name in POLICIES or name in AUGMENTATIONS
            require(is_known, "augment.policy", text, known, "see --list")
            allowed, remedy = "NAME or NAME=SHARE, SHARE in (0, 1]", f"write {name}=0.5"
            require("=" not in text or _is_share(number), "augment.policy", text, allowed, remedy)
        require(self.interval >= 1, "augment.interval", self.interval, "1 or more", "ADA has 4")
        share = math.isfinite(self.probability) and 0 <= self.probability <= 1
        require(share, "augment.probability", self.probability, "[0, 1]", "choose another value")
        require(0 <= self.target < 1, "augment.target", self.target, "[0, 1)", "ADA has 0.6")
        require_number("augment.speed_kimg", self.speed_kimg, above=0)

    @property
    def shares(self) -> dict[str, float]:
        """The augmentations, policies written out, each with its share of the probability."""
        return _shares(self.policy)

    def transform(self, fixed_at: Callable[[int], float]) -> Callable[[Tensor, Any, int], Tensor]:
        """Returns the augmentation as a `training.game.losses.ImageTransform`.

        fixed_at: cur_nimg to the probability that is used unless it is adapted; an adapted one is
        the batch's.
        """
        shares, adapts = self.shares, self.target > 0

        def augmented(img: Tensor, batch: Any, seed: int) -> Tensor:
            probability = batch.augment_p if adapts else fixed_at(batch.cur_nimg)
            return augment(img, shares, probability, seed)

        return augmented

    def adapt(self, probability: Tensor, r_t: Tensor, num_images: Tensor | int) -> Tensor:
        """Returns the next probability (`adapt`), at most the configured one."""
        following = adapt(
            probability,
            r_t,
            num_images=num_images,
            target=self.target,
            speed_kimg=self.speed_kimg,
        )
        return following.clamp(max=self.probability)


def augment(
    img: Tensor,
    policy: tuple[str, ...] | Mapping[str, float],
    probability: float | Tensor,
    seed: int,
) -> Tensor:
    """Applies each augmentation of the policy to each image with a probability.

    Args:
        img: [N, C, H, W] floating point in [-1, 1]; the result may lie beyond.
        policy: entries of AUGMENTATIONS, with their shares of the probability (1 where only names
            are given): geometry is applied first, then colour, spectrum, and the rest, each kind in
            the order given.
        probability: that an augmentation is applied to an image, in [0, 1]; a scalar on img's
            device may be given, and is not waited for. At 0 the images stay bit by bit.
        seed: the draws depend on its lower 32 bits, the policy's names and img's shape.

    Returns:
        [N, C, H, W], differentiable by img, twice.
    """
    touched = torch.zeros(len(img), dtype=torch.bool, device=img.device)
    shares = policy if isinstance(policy, Mapping) else _shares(policy)
    chosen = {name: AUGMENTATIONS[name] for name in shares}
    chosen = {n: a for n, a in chosen.items() if not (a.rgb_only and img.shape[1] == 1)}
    out = img
    for kind, size, apply in _COMPOSED:
        entries = {n: a for n, a in chosen.items() if a.kind == kind}
        if not entries:
            continue
        square = kind != "spectrum"  # gains are multiplied one by one, maps as matrices
        none = torch.eye(size, device=img.device) if square else torch.ones(size, device=img.device)
        total, any_applied = none.expand(len(img), *none.shape), touched
        for name, entry in entries.items():
            drawn, gate = _draw(name, entry, img, seed)
            # Strictly below, so that probability 0 touches no image. All images draw, touched or
            # not: what one gets doesn't depend on the probability.
            applied = gate < _probability(entry, shares[name], probability)
            drawn = torch.where(applied.view(-1, *[1] * none.dim()), drawn, none)
            # Geometry maps a pixel of the result to its source: the last map comes first.
            if kind == "geometry":
                total = total @ drawn
            else:
                total = drawn @ total if square else drawn * total
            any_applied = any_applied | applied
        # Untouched images are taken as they are, as resampling by the identity would round.
        out = torch.where(any_applied[:, None, None, None], apply(out, total), out)
    for name, entry in chosen.items():
        if entry.pixels is not None:
            drawn, gate = _draw(name, entry, img, seed)
            applied = (gate < _probability(entry, shares[name], probability))[:, None, None, None]
            out = torch.where(applied, entry.pixels(out, drawn), out)
    return out


def _probability(entry: Augmentation, share: float, probability: float | Tensor) -> float | Tensor:
    """Returns that of one augmentation; halves of a change are independent of each other."""
    own = probability if share == 1 else share * probability
    if not entry.one_of_two:
        return own
    neither = (1 - own).clamp(min=0).sqrt() if isinstance(own, Tensor) else math.sqrt(1 - own)
    return 1 - neither


def _shares(policy: tuple[str, ...]) -> dict[str, float]:
    """Reads names, each with =SHARE or without, and writes policies out; the last one counts."""
    found: dict[str, float] = {}
    for text in policy:
        name, _, number = text.partition("=")
        share = float(number or 1)
        entries = _shares(POLICIES[name]) if name in POLICIES else {name: 1.0}
        found |= {entry: own * share for entry, own in entries.items()}
    return found


def _is_share(text: str) -> bool:
    try:
        return 0 < float(text) <= 1
    except ValueError:
        return False


def overfitting(real_logits: Tensor) -> Tensor:
    """Computes r_t = E[sign D(real)]: 0 for a D that can't tell, 1 for one that knows every image.

    Source: Karras et al. 2020, arXiv:2006.06676, eq. 1.

    real_logits: [N] floating point. Returns a scalar.
    """
    return real_logits.detach().sign().mean()


def adapt(
    probability: Tensor,
    r_t: Tensor,
    *,
    num_images: Tensor | int,
    target: float = 0.6,
    speed_kimg: float = 500.0,
) -> Tensor:
    """Returns the next probability: higher where D overfits, lower where it doesn't.

    Source: Karras et al. 2020, arXiv:2006.06676, sec. 3.1.

    Args:
        probability: the present one, a scalar in [0, 1].
        r_t: from `overfitting`, a mean over the images since the last call.
        num_images: how many these were.
        target: of r_t.
        speed_kimg: thousands of images in which it can go from 0 to 1.

    Returns:
        A scalar in [0, 1]; nothing waits for the device.
    """
    step = num_images / (speed_kimg * 1000)
    return (probability + (r_t - target).sign() * step).clamp(0, 1)


def _draw(name: str, entry: Augmentation, img: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Returns an augmentation's draws, and a uniform number for each image that decides on it."""
    # By name, so that an augmentation draws the same whatever others the policy has.
    generator = torch.Generator().manual_seed(key(0, f"augment/{name}", seed))
    height, width = img.shape[2:]

    def draws(num: int) -> Draws:
        return Draws(num=num, height=height, width=width, generator=generator)

    gate = per_row(lambda num: draws(num).uniform(), len(img))
    drawn = per_row(lambda num: entry.draw(draws(num)), len(img))
    # Both at once, and without waiting for the device.
    both = sent(torch.cat([gate[:, None], drawn.flatten(1)], 1), img.device)
    return both[:, 1:].reshape(drawn.shape), both[:, 0]


def _resample(img: Tensor, maps: Tensor) -> Tensor:
    """Takes each pixel from the place that its map gives, bilinearly.

    maps: [N, 3, 3] on (x, y, 1), in pixels, the image's centre at 0.
    """
    num, channels, height, width = img.shape
    y = torch.arange(height, device=img.device, dtype=torch.float32) - (height - 1) / 2
    x = torch.arange(width, device=img.device, dtype=torch.float32) - (width - 1) / 2
    column, row = x.expand(height, width).flatten(), y[:, None].expand(height, width).flatten()
    ax, ay = maps[:, :1], maps[:, 1:2]
    from_x = ax[..., 0] * column + ax[..., 1] * row + ax[..., 2] + (width - 1) / 2
    from_y = ay[..., 0] * column + ay[..., 1] * row + ay[..., 2] + (height - 1) / 2
    # Four gathers and a weighted sum: operations that can be differentiated twice.
    left, top = from_x.floor(), from_y.floor()
    right_share, low_share = (from_x - left).to(img.dtype), (from_y - top).to(img.dtype)
    flat = img.flatten(2)
    out = torch.zeros_like(flat)
    for dy, share_y in ((0, 1 - low_share), (1, low_share)):
        for dx, share_x in ((0, 1 - right_share), (1, right_share)):
            index = mirrored(top + dy, height) * width + mirrored(left + dx, width)
            corner = flat.gather(2, index[:, None].expand(num, channels, -1))
            out = out + corner * (share_x * share_y)[:, None]
    return out.view_as(img)


def _recolour(img: Tensor, maps: Tensor) -> Tensor:
    """Maps each pixel's colour; of a grey one, as r = g = b, the mean of the result is taken.

    Alpha, a fourth channel, stays as it is.
    """
    maps = maps.to(img.dtype)
    matrix, offset = maps[:, :3, :3], maps[:, :3, 3]
    if img.shape[1] == 1:
        factor = matrix.sum(2).mean(1)
        return img * factor[:, None, None, None] + offset.mean(1)[:, None, None, None]
    rows = [
        sum(
            (img[:, i] * matrix[:, o, i, None, None] for i in range(3)), torch.zeros_like(img[:, 0])
        )
        for o in range(3)
    ]
    coloured = torch.stack(rows, 1) + offset[:, :, None, None]
    return coloured if img.shape[1] == 3 else torch.cat([coloured, img[:, 3:]], 1)


_COMPOSED: tuple[tuple[str, int, Callable[[Tensor, Tensor], Tensor]], ...] = (
    ("geometry", 3, _resample),
    ("colour", 4, _recolour),
    ("spectrum", 4, filtered),
)
