"""Known corruptions of the data, as a measurement between G and D.

The images to train on are corrupted already. G's images go through the same random measurement
before D sees them, so that D compares like with like and G learns the images before the corruption
(AmbientGAN, Bora et al. 2018, ICLR, sec. 3 and 4). A measurement is a pure, differentiable function
of (images, strength, seed) at the resolution of the training; a new one is one more entry.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from models.networks.rows import per_row
from training.errors import ConfigError, require

_APART = 1 << 16  # of one measurement's seed from the next one's

Apply = Callable[[Tensor, float, int], Tensor]
"""(img [N, C, H, W] float32 in [-1, 1], strength, seed) to the same shape and range."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """An entry of CORRUPTIONS."""

    apply: Apply
    """The function."""
    most: float
    """Of the strength, which is above 0."""
    about: str
    """What the strength means."""
    paper: str = "Bora et al. 2018, ICLR (AmbientGAN), sec. 4"
    """Where it is from."""


def mask(img: Tensor, strength: float, seed: int) -> Tensor:
    """Each pixel is black, -1, with that probability (Block-Pixels)."""
    generator, size = _generator(img, seed), (1, *img.shape[2:])
    draws = per_row(
        lambda num: torch.rand(num, *size, generator=generator, device=img.device), len(img)
    )
    return torch.where(draws < strength, -1.0, img)


def noise(img: Tensor, strength: float, seed: int) -> Tensor:
    """Plus strength * N(0, 1), and clipped as 8 bits clip it (Convolve + Noise, without blur)."""
    generator, size = _generator(img, seed), img.shape[1:]
    draws = per_row(
        lambda num: torch.randn(num, *size, generator=generator, device=img.device), len(img)
    )
    return (img + strength * draws.to(img.dtype)).clamp(-1, 1)


def blur(img: Tensor, strength: float, seed: int) -> Tensor:
    """Convolved with a normal density of that many pixels; edge pixels are repeated outwards."""
    reach = min(math.ceil(3 * strength), max(img.shape[2:]))
    place = torch.arange(-reach, reach + 1, device=img.device, dtype=img.dtype)
    kernel = torch.exp(-0.5 * (place / strength).square())
    kernel /= kernel.sum()
    rows = img.flatten(0, 1)[:, None]
    rows = pad(rows, (reach, reach, reach, reach), mode="replicate")
    rows = conv2d(conv2d(rows, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    return rows.view_as(img)


CORRUPTIONS: dict[str, Measurement] = {
    "mask": Measurement(apply=mask, most=0.99, about="share of the pixels that are black"),
    "noise": Measurement(
        apply=noise,
        most=4.0,
        about="standard deviation of normal noise, where black is -1, white 1",
    ),
    "blur": Measurement(apply=blur, most=64.0, about="sigma of a normal blur, in pixels"),
}


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """One measurement, written NAME=STRENGTH."""

    name: str
    """Entry of CORRUPTIONS."""
    strength: float
    """What it means, --list says."""

    def __post_init__(self) -> None:
        """Refuses what measures nothing."""
        known = ", ".join(CORRUPTIONS)
        require(self.name in CORRUPTIONS, "corruption", self.name, known, "write mask=0.5")
        entry = CORRUPTIONS[self.name]
        fits = math.isfinite(self.strength) and 0 < self.strength <= entry.most
        allowed = f"above 0, at most {entry.most:g}: {entry.about}"
        remedy = f"write {self.name}={min(0.5, entry.most):g}, or leave it out"
        require(fits, f"corruption: {self.name}", self.strength, allowed, remedy)

    def __str__(self) -> str:
        return f"{self.name}={self.strength:g}"

    @classmethod
    def parse(cls, text: str) -> "Corruption":
        """The inverse of str.

        Raises:
            ConfigError: the text is no corruption.
        """
        name, _, strength = text.partition("=")
        try:
            return cls(name=name, strength=float(strength))
        except ValueError:
            message = f"corruption is {text!r}, allowed: NAME=STRENGTH"
            raise ConfigError(f"{message}; for instance mask=0.5") from None


def measure(img: Tensor, corruptions: tuple[Corruption, ...], seed: int) -> Tensor:
    """The images as a device with these faults would have taken them, one after the other."""
    for index, corruption in enumerate(corruptions):
        entry = CORRUPTIONS[corruption.name]
        img = entry.apply(img, corruption.strength, seed + _APART * index)
    return img


def lens(
    corruptions: tuple[Corruption, ...],
) -> Callable[[Tensor, str, object, int], Tensor]:
    """What stands between an image and D: a `training.game.Lens`. Real images had it already."""

    def seen(img: Tensor, side: str, batch: object, seed: int) -> Tensor:
        return measure(img, corruptions, seed) if side == "fake" else img

    return seen


def _generator(img: Tensor, seed: int) -> torch.Generator:
    return torch.Generator(img.device).manual_seed(seed % 2**63)
