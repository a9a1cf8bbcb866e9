"""Differentiable augmentation: what D sees of real and generated images, changed at random.

A pure function of (images, seed), which can be differentiated twice, as R1 on augmented images
needs (F.grid_sample can't). And ADA's controller, as a pure function of its state. Knows no network
and no loss.

Geometric augmentations are composed into one affine map and colours into one matrix, as in ADA, so
that pixels are resampled once: bilinearly with mirrored edges, where the paper filters with
wavelets before and after. Flips, quarter turns and whole shifts are exact.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.networks.rows import per_row
from training.augmentations import AUGMENTATIONS, POLICIES, Augmentation, Draws
from training.errors import require, require_number
from training.randomness import key


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What D sees changed at random."""

    policy: tuple[str, ...] = ()
    """Augmentations, or a paper's whole set: diffaugment or ada; none by default."""
    probability: float = 1.0
    """That each is applied to an image; with a target, the most it may come to."""
    target: float = 0.0
    """E[sign D(real)] that the probability, from 0 on, is adapted to (0.6); 0 keeps it fixed."""
    speed_kimg: float = 500.0
    """Thousands of images in which it can go from 0 to 1."""

    def __post_init__(self) -> None:
        """Refuses what is no augmentation."""
        known = ", ".join([*POLICIES, *AUGMENTATIONS])
        for name in self.policy:
            is_known = name in POLICIES or name in AUGMENTATIONS
            require(is_known, "augment.policy", name, known, "see --list")
        share = math.isfinite(self.probability) and 0 <= self.probability <= 1
        require(share, "augment.probability", self.probability, "[0, 1]", "choose another value")
        require(0 <= self.target < 1, "augment.target", self.target, "[0, 1)", "ADA has 0.6")
        require_number("augment.speed_kimg", self.speed_kimg, above=0)

    @property
    def names(self) -> tuple[str, ...]:
        """The augmentations, sets written out, each once."""
        written = (POLICIES.get(name, (name,)) for name in self.policy)
        return tuple(dict.fromkeys(name for names in written for name in names))

    def lens(self) -> Callable[[Tensor, str, Any, int], Tensor]:
        """What stands between an image and D: a `training.game.Lens`."""
        names = self.names

        def seen(img: Tensor, side: str, batch: Any, seed: int) -> Tensor:
            return augment(img, names, batch.augment_p, seed)

        return seen

    def adapt(self, probability: Tensor, r_t: Tensor, num_images: int) -> Tensor:
        """The next probability of an adaptive augmentation; see `adapt`."""
        following = adapt(
            probability,
            r_t,
            num_images=num_images,
            target=self.target,
            speed_kimg=self.speed_kimg,
        )
        return following.clamp(max=self.probability)


def augment(img: Tensor, policy: tuple[str, ...], probability: float | Tensor, seed: int) -> Tensor:
    """Changes each image by each augmentation of the policy with a probability.

    Args:
        img: [N, C, H, W] floating point in [-1, 1]; the result may lie beyond.
        policy: entries of AUGMENTATIONS: geometry is applied first, then colour, then the rest,
            each kind in the order given.
        probability: that an augmentation is applied to an image, in [0, 1]; a scalar on img's
            device may be given, and is not waited for. At 0, the images as they are.
        seed: what is drawn depends on its lower 32 bits, the policy's names and img's shape.

    Returns:
        [N, C, H, W], differentiable by img, twice.
    """
    touched = torch.zeros(len(img), dtype=torch.bool, device=img.device)
    chosen = {name: AUGMENTATIONS[name] for name in policy}
    chosen = {n: a for n, a in chosen.items() if not (a.rgb_only and img.shape[1] != 3)}
    out = img
    for kind, size, apply in (("geometry", 3, _resample), ("colour", 4, _recolour)):
        entries = {n: a for n, a in chosen.items() if a.kind == kind}
        if not entries:
            continue
        eye = torch.eye(size, device=img.device)
        total, any_applied = eye.expand(len(img), size, size), touched
        for name, entry in entries.items():
            drawn, gate = _draw(name, entry, img, seed)
            applied = gate < probability
            drawn = torch.where(applied[:, None, None], drawn, eye)
            # Where a pixel comes from is asked backwards: of the last map first.
            total = total @ drawn if kind == "geometry" else drawn @ total
            any_applied = any_applied | applied
        out = torch.where(any_applied[:, None, None, None], apply(out, total), out)
    for name, entry in chosen.items():
        if entry.pixels is not None:
            drawn, gate = _draw(name, entry, img, seed)
            applied = (gate < probability)[:, None, None, None]
            out = torch.where(applied, entry.pixels(out, drawn), out)
    return out


def overfitting(real_logits: Tensor) -> Tensor:
    """r_t = E[sign D(real)], 0 where D can't tell, 1 where it knows them all (Karras 2020, eq. 1).

    real_logits: [N] floating point. Returns a scalar.
    """
    return real_logits.detach().sign().mean()


def adapt(
    probability: Tensor,
    r_t: Tensor,
    *,
    num_images: int,
    target: float = 0.6,
    speed_kimg: float = 500.0,
) -> Tensor:
    """The next probability: up where D overfits, down where it doesn't (Karras 2020, sec. 3.1).

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
    """What an augmentation drew, and a uniform number an image that decides, on img's device."""
    generator = torch.Generator().manual_seed(key(0, f"augment/{name}", seed))
    height, width = img.shape[2:]

    def draws(num: int) -> Draws:
        return Draws(num=num, height=height, width=width, generator=generator)

    gate = per_row(lambda num: draws(num).uniform(), len(img))
    drawn = per_row(lambda num: entry.draw(draws(num)), len(img))
    return drawn.to(img.device), gate.to(img.device)


def _resample(img: Tensor, maps: Tensor) -> Tensor:
    """Every pixel from where its map leads, in coordinates with the centre at 0 and x first."""
    num, channels, height, width = img.shape
    y = torch.arange(height, device=img.device, dtype=torch.float32) - (height - 1) / 2
    x = torch.arange(width, device=img.device, dtype=torch.float32) - (width - 1) / 2
    column, row = x.expand(height, width).flatten(), y[:, None].expand(height, width).flatten()
    ax, ay = maps[:, :1], maps[:, 1:2]
    from_x = ax[..., 0] * column + ax[..., 1] * row + ax[..., 2] + (width - 1) / 2
    from_y = ay[..., 0] * column + ay[..., 1] * row + ay[..., 2] + (height - 1) / 2
    left, top = from_x.floor(), from_y.floor()
    right_share, low_share = (from_x - left).to(img.dtype), (from_y - top).to(img.dtype)
    flat = img.flatten(2)
    out = torch.zeros_like(flat)
    for dy, share_y in ((0, 1 - low_share), (1, low_share)):
        for dx, share_x in ((0, 1 - right_share), (1, right_share)):
            index = _mirror(top + dy, height) * width + _mirror(left + dx, width)
            corner = flat.gather(2, index[:, None].expand(num, channels, -1))
            out = out + corner * (share_x * share_y)[:, None]
    return out.view_as(img)


def _mirror(index: Tensor, size: int) -> Tensor:
    """Whole numbers to 0 .. size - 1, mirrored at the first and last pixel."""
    if size == 1:
        return torch.zeros_like(index, dtype=torch.int64)
    period = 2 * (size - 1)
    folded = index.to(torch.int64) % period
    return torch.where(folded < size, folded, period - folded)


def _recolour(img: Tensor, maps: Tensor) -> Tensor:
    """Each pixel's colour by its map; a grey one counts as r = g = b, and its mean is kept."""
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
    return torch.stack(rows, 1) + offset[:, :, None, None]
