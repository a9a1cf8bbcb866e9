"""Known corruptions of the data, as a measurement between G and D.

The images to train on are corrupted already. G's images go through the same random measurement
before D sees them, so that D compares like with like and G learns the images before the corruption
(AmbientGAN, Bora et al. 2018, ICLR, sec. 3 and 4). Measured images are D's images: a gradient
penalty is taken by them, not through the measurement (`training.game.losses.Game`). A measurement
is a pure, differentiable function of (images, strength, seed) at the resolution of the training; a
new one is one more entry.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from training.errors import ConfigError, require
from training.randomness import draw_rows, generator

_APART = 1 << 16  # of one measurement's seed from the next one's

Apply = Callable[[Tensor, float, int], Tensor]
"""(img [N, C, H, W] float32 in [-1, 1], strength, seed) to the same shape and range."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One kind of corruption."""

    apply: Apply
    """Corrupts images."""
    most: float
    """The greatest strength; the least is above 0."""
    about: str
    """Says what the strength means, for --list."""
    paper: str = "Bora et al. 2018, ICLR (AmbientGAN), sec. 4"
    """Where it is from."""


def mask(img: Tensor, strength: float, seed: int) -> Tensor:
    """Makes each pixel black, -1, with that probability (Block-Pixels)."""
    draws = draw_rows(torch.rand, img, (1, *img.shape[2:]), generator(img.device, seed))
    return torch.where(draws < strength, -1.0, img)


def noise(img: Tensor, strength: float, seed: int) -> Tensor:
    """Adds strength * N(0, 1), and clips as 8 bits clip it (Convolve + Noise, without blur)."""
    draws = draw_rows(torch.randn, img, img.shape[1:], generator(img.device, seed))
    return (img + strength * draws).clamp(-1, 1)


def blur(img: Tensor, strength: float, seed: int) -> Tensor:
    """Convolves with a normal density of that many pixels; edge pixels are repeated outwards."""
    reach = min(math.ceil(3 * strength), max(img.shape[2:]))
    place = torch.arange(-reach, reach + 1, device=img.device, dtype=img.dtype)
    kernel = torch.exp(-0.5 * (place / strength).square())
    kernel /= kernel.sum()
    rows = img.flatten(0, 1)[:, None]
    rows = pad(rows, (reach, reach, reach, reach), mode="replicate")
    # Separable: two passes of a line cost less than one of a square.
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
    """In the unit of that entry, see --list."""

    def __post_init__(self) -> None:
        """Refuses unknown names and strengths out of range."""
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
        """Reads a corruption from the text that str() gives.

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
    """Applies the corruptions one after the other. img: [N, C, H, W] float32 in [-1, 1]."""
    for index, corruption in enumerate(corruptions):
        entry = CORRUPTIONS[corruption.name]
        img = entry.apply(img, corruption.strength, seed + _APART * index)
    return img
