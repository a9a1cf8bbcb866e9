"""The augmentations, each an entry: its random draws, and how they act on an image.

They are those of DiffAugment (Zhao et al. 2020, arXiv:2006.10738) and ADA (Karras et al. 2020,
arXiv:2006.06676, app. B). An entry draws on the CPU, so that a seed gives the same on every device.
Each acts on the pixels linearly or quadratically. `training.transforms.augmentation` applies them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["geometry", "colour", "spectrum", "pixels"]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """One way to change images."""

    kind: Kind
    """geometry: draws a map of coordinates, [N, 3, 3]. colour: one of (r, g, b, 1), [N, 4, 4].
    spectrum: the gains of four octaves of detail, coarse to fine, [N, 4]. pixels: what `pixels`
    needs, a row an image."""
    draw: Callable[["Draws"], Tensor]
    """On the CPU, float32."""
    paper: str
    """Where it is from."""
    pixels: Callable[[Tensor, Tensor], Tensor] | None = None
    """Maps (images, draws) to images; for the kind pixels."""
    rgb_only: bool = False
    """True where it leaves grey images alone, as they have no hue."""
    one_of_two: bool = False
    """True where it is half of one change: one of both happens with the change's probability."""


@dataclass(frozen=True, kw_only=True)
class Draws:
    """A source of random numbers for one augmentation, one an image."""

    num: int
    """Images."""
    height: int
    """In pixels."""
    width: int
    """In pixels."""
    generator: torch.Generator
    """On the CPU."""

    def uniform(self, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Draws [num] float32 uniformly from [low, high)."""
        return torch.rand(self.num, generator=self.generator) * (high - low) + low

    def normal(self, std: float) -> Tensor:
        """Draws [num] float32 from N(0, std^2)."""
        return torch.randn(self.num, generator=self.generator) * std

    def whole(self, low: int, high: int) -> Tensor:
        """Draws [num] whole numbers from low .. high, both included, as float32."""
        return torch.randint(low, high + 1, (self.num,), generator=self.generator).float()


AUGMENTATIONS: dict[str, Augmentation] = {}

_DIFF = "Zhao et al. 2020, arXiv:2006.10738"
_ADA = "Karras et al. 2020, arXiv:2006.06676, app. B"


def _enter(
    name: str,
    kind: Kind,
    paper: str,
    *,
    pixels: Callable[[Tensor, Tensor], Tensor] | None = None,
    rgb_only: bool = False,
    one_of_two: bool = False,
) -> Callable[[Callable[[Draws], Tensor]], Callable[[Draws], Tensor]]:
    """Registers the decorated function, which draws, in AUGMENTATIONS."""

    def enter(draw: Callable[[Draws], Tensor]) -> Callable[[Draws], Tensor]:
        AUGMENTATIONS[name] = Augmentation(
            kind=kind,
            draw=draw,
            paper=paper,
            pixels=pixels,
            rgb_only=rgb_only,
            one_of_two=one_of_two,
        )
        return draw

    return enter


def _affine(a: Tensor, b: Tensor, x: Tensor, c: Tensor, d: Tensor, y: Tensor) -> Tensor:
    """Returns [[a, b, x], [c, d, y], [0, 0, 1]], [N, 3, 3], from entries [N]."""
    zero, one = torch.zeros_like(a), torch.ones_like(a)
    return torch.stack([a, b, x, c, d, y, zero, zero, one], 1).view(-1, 3, 3)


def _linear(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    zero = torch.zeros_like(a)
    return _affine(a, b, zero, c, d, zero)


def _shift(x: Tensor, y: Tensor) -> Tensor:
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    return _affine(one, zero, x, zero, one, y)


@_enter("flip", "geometry", _ADA)
def flip(draws: Draws) -> Tensor:
    """Mirrored left to right, half of the time."""
    sign = 1 - 2 * draws.whole(0, 1)
    return _linear(sign, torch.zeros_like(sign), torch.zeros_like(sign), torch.ones_like(sign))


@_enter("rotate90", "geometry", _ADA)
def rotate90(draws: Draws) -> Tensor:
    """0 to 3 quarter turns."""
    turns = draws.whole(0, 3).long()
    cos, sin = torch.tensor([1.0, 0, -1, 0])[turns], torch.tensor([0.0, 1, 0, -1])[turns]
    return _linear(cos, -sin, sin, cos)


@_enter("shift", "geometry", _ADA)
def shift(draws: Draws) -> Tensor:
    """By whole pixels, up to an eighth of the image."""
    x = (draws.uniform(-0.125, 0.125) * draws.width).round()
    y = (draws.uniform(-0.125, 0.125) * draws.height).round()
    return _shift(x, y)


@_enter("scale", "geometry", _ADA)
def scale(draws: Draws) -> Tensor:
    """By a lognormal factor, sigma 0.2 ln 2."""
    factor = torch.exp2(draws.normal(0.2))
    zero = torch.zeros_like(factor)
    # Maps lead from a pixel of the result back to its source: the inverse of the change.
    return _linear(1 / factor, zero, zero, 1 / factor)


@_enter("rotate", "geometry", _ADA)
def rotate(draws: Draws) -> Tensor:
    """By any angle, once; the paper turns before and after it stretches."""
    return _turned(draws)


@_enter("rotate-before", "geometry", _ADA, one_of_two=True)
def rotate_before(draws: Draws) -> Tensor:
    """By any angle, before it is stretched, which `rotate-after` follows."""
    return _turned(draws)


@_enter("rotate-after", "geometry", _ADA, one_of_two=True)
def rotate_after(draws: Draws) -> Tensor:
    """By any angle, once more."""
    return _turned(draws)


def _turned(draws: Draws) -> Tensor:
    angle = draws.uniform(-math.pi, math.pi)
    return _linear(angle.cos(), -angle.sin(), angle.sin(), angle.cos())


@_enter("stretch", "geometry", _ADA)
def stretch(draws: Draws) -> Tensor:
    """Wider and lower, or the reverse, by a lognormal factor, sigma 0.2 ln 2."""
    factor = torch.exp2(draws.normal(0.2))
    zero = torch.zeros_like(factor)
    return _linear(1 / factor, zero, zero, factor)


@_enter("fraction", "geometry", _ADA)
def fraction(draws: Draws) -> Tensor:
    """Shifted by fractions of pixels, normal, sigma an eighth of the image."""
    x, y = draws.normal(0.125), draws.normal(0.125)
    return _shift(x * draws.width, y * draws.height)


def _colour(matrix: Tensor, offset: Tensor) -> Tensor:
    """Joins matrix [N, 3, 3] and offset [N, 3] to a map [N, 4, 4] of (r, g, b, 1)."""
    out = torch.eye(4).repeat(len(matrix), 1, 1)
    out[:, :3, :3], out[:, :3, 3] = matrix, offset
    return out


_EYE = torch.eye(3)
_GREY = torch.full((3, 3), 1 / 3)  # projects a colour on the luma axis (1, 1, 1) / sqrt 3


@_enter("brightness", "colour", _ADA)
def brightness(draws: Draws) -> Tensor:
    """Plus a normal number, sigma 0.2."""
    return _colour(_EYE.expand(draws.num, 3, 3), draws.normal(0.2)[:, None].expand(-1, 3))


@_enter("contrast", "colour", _ADA)
def contrast(draws: Draws) -> Tensor:
    """Times a lognormal number, sigma 0.5 ln 2."""
    factor = torch.exp2(draws.normal(0.5))[:, None, None]
    return _colour(_EYE * factor, torch.zeros(draws.num, 3))


@_enter("luma-flip", "colour", _ADA)
def luma_flip(draws: Draws) -> Tensor:
    """Dark and bright exchanged, hue kept, half of the time; a grey image is inverted."""
    chosen = draws.whole(0, 1)[:, None, None]
    return _colour(_EYE - 2 * chosen * _GREY, torch.zeros(draws.num, 3))


@_enter("hue", "colour", _ADA, rgb_only=True)
def hue(draws: Draws) -> Tensor:
    """Turned about the luma axis by any angle (Rodrigues' formula)."""
    angle = draws.uniform(-math.pi, math.pi)[:, None, None]
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    matrix = angle.cos() * _EYE + angle.sin() * cross + (1 - angle.cos()) * _GREY
    return _colour(matrix, torch.zeros(draws.num, 3))


@_enter("saturation", "colour", _ADA, rgb_only=True)
def saturation(draws: Draws) -> Tensor:
    """The distance from the luma axis times a lognormal number, sigma ln 2."""
    factor = torch.exp2(draws.normal(1.0))[:, None, None]
    return _colour(_GREY + (_EYE - _GREY) * factor, torch.zeros(draws.num, 3))


def _jitter(img: Tensor, drawn: Tensor) -> Tensor:
    add, saturate, spread = (
        column[:, None, None, None] for column in drawn.to(img.dtype).unbind(1)
    )
    img, alpha = img[:, :3], img[:, 3:]  # alpha, if there is any, stays as it is
    img = img + add
    grey = img.mean(1, keepdim=True)
    img = (img - grey) * saturate + grey
    mean = img.mean((1, 2, 3), keepdim=True)
    img = (img - mean) * spread + mean
    return torch.cat([img, alpha], 1) if alpha.shape[1] else img


_POWER = torch.tensor([10.0, 1, 1, 1]) / 13  # expected, of the octaves of a photograph (1/f)


def _band(index: int) -> Callable[[Draws], Tensor]:
    def draw(draws: Draws) -> Tensor:
        gains = torch.ones(draws.num, 4)
        gains[:, index] = torch.exp2(draws.normal(1.0))
        # So that the image's power stays what is expected of it.
        return gains / (_POWER * gains.square()).sum(1, keepdim=True).sqrt()

    draw.__doc__ = f"Octave {index} of 4, from coarse to fine, times a lognormal, sigma ln 2."
    return draw


BANDS = tuple(f"band-{index}" for index in range(4))
for _index, _name in enumerate(BANDS):
    _enter(_name, "spectrum", _ADA)(_band(_index))


def _noisy(img: Tensor, drawn: Tensor) -> Tensor:
    seen = img[:, :3]  # alpha, a fourth channel, stays
    values = drawn[:, 1 : 1 + seen[0].numel()].view_as(seen)
    noisy = seen + (drawn[:, 0, None, None, None] * values).to(img.dtype)
    return noisy if img.shape[1] <= 3 else torch.cat([noisy, img[:, 3:]], 1)


@_enter("noise", "pixels", _ADA, pixels=_noisy)
def noise(draws: Draws) -> Tensor:
    """Plus normal noise, its standard deviation the size of a normal number of sigma 0.1."""
    values = torch.randn(draws.num, 3 * draws.height * draws.width, generator=draws.generator)
    return torch.cat([draws.normal(0.1).abs()[:, None], values], 1)


def _erased(img: Tensor, drawn: Tensor) -> Tensor:
    height, width = img.shape[2:]
    y = (torch.arange(height, device=img.device) + 0.5) / height
    x = (torch.arange(width, device=img.device) + 0.5) / width
    rows = (y - drawn[:, :1]).abs() < 0.25
    columns = (x - drawn[:, 1:]).abs() < 0.25
    return img * ~(rows[:, :, None] & columns[:, None, :])[:, None]


@_enter("erase", "pixels", _ADA, pixels=_erased)
def erase(draws: Draws) -> Tensor:
    """0, mid-grey, in half the height and width around any place: ADA's cutout."""
    return torch.stack([draws.uniform(), draws.uniform()], 1)


@_enter("color", "pixels", _DIFF, pixels=_jitter)
def color(draws: Draws) -> Tensor:
    """Brightness plus U(-0.5, 0.5), saturation times U(0, 2), contrast times U(0.5, 1.5)."""
    return torch.stack([draws.uniform(-0.5, 0.5), draws.uniform(0, 2), draws.uniform(0.5, 1.5)], 1)


def _inside(img: Tensor, low_y: Tensor, high_y: Tensor, low_x: Tensor, high_x: Tensor) -> Tensor:
    """True in rows low_y .. high_y - 1 and columns low_x .. high_x - 1, [N, 1, H, W] bool."""
    y = torch.arange(img.shape[2], device=img.device)
    x = torch.arange(img.shape[3], device=img.device)
    rows = (y >= low_y[:, None]) & (y < high_y[:, None])
    columns = (x >= low_x[:, None]) & (x < high_x[:, None])
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def _translate(img: Tensor, drawn: Tensor) -> Tensor:
    height, width = img.shape[2:]
    down, right = drawn.long().unbind(1)
    y = torch.arange(height, device=img.device) - down[:, None]
    x = torch.arange(width, device=img.device) - right[:, None]
    # Places outside are clamped only to have an index; the mask below makes them grey.
    index = y.clamp(0, height - 1)[:, :, None] * width + x.clamp(0, width - 1)[:, None, :]
    moved = img.flatten(2).gather(2, index.flatten(1)[:, None].expand(-1, img.shape[1], -1))
    there = _inside(img, down, height + down, right, width + right)
    return moved.view_as(img) * there


@_enter("translation", "pixels", _DIFF, pixels=_translate)
def translation(draws: Draws) -> Tensor:
    """Shifted by whole pixels, up to an eighth of the image; 0, mid-grey, where nothing was."""
    far_y, far_x = int(draws.height / 8 + 0.5), int(draws.width / 8 + 0.5)
    return torch.stack([draws.whole(-far_y, far_y), draws.whole(-far_x, far_x)], 1)


def _cut(img: Tensor, drawn: Tensor) -> Tensor:
    top, left = drawn.unbind(1)
    height, width = (int(side / 2 + 0.5) for side in img.shape[2:])
    return img * ~_inside(img, top, top + height, left, left + width)


@_enter("cutout", "pixels", _DIFF, pixels=_cut)
def cutout(draws: Draws) -> Tensor:
    """0, mid-grey, in a rectangle of half the height and width, which may lie partly outside."""
    corners = []
    for side in (draws.height, draws.width):
        half = int(side / 2 + 0.5)
        centre = draws.whole(0, side - half % 2)
        corners.append(centre - half // 2)
    return torch.stack(corners, 1)


_GEOMETRY = (
    *("flip", "rotate90", "shift"),
    *("scale", "rotate-before", "stretch", "rotate-after", "fraction"),
)
_COLOURS = ("brightness", "contrast", "luma-flip", "hue", "saturation")

POLICIES: dict[str, tuple[str, ...]] = {
    "diffaugment": ("color", "translation", "cutout"),
    "ada": (*_GEOMETRY, *_COLOURS),
    "ada-all": (*_GEOMETRY, *_COLOURS, *BANDS, "noise", "erase"),
    "r3gan": (*_GEOMETRY, *(f"{name}=0.5" for name in _COLOURS), "erase"),
}
"""Policies of the papers by name. ADA's is its pixel blitting, geometry and colours ("bgc"), or all
of its transforms ("bgcfnc"); R3GAN's (Huang et al. 2024) has colours at half of the probability."""
