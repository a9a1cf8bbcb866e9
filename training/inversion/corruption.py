"""What is done to images at random so that one encoder serves filling and enlarging.

Keyed by a torch generator; images are [N, C, H, W] in [-1, 1], masks [N, 1, H, W] with 1 where a
pixel is known.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

FACTORS = (2, 4)
"""Of the downscaling; only those that divide the image's sides and leave 4 pixels are used."""
_LEAST_SIDE = 4
_PLAIN, _MASKED = 0.5, 0.8  # up to the first: whole images; up to the second: masked; then small
_GRID = 4  # cells a side of a mask that is scattered


@dataclass(frozen=True)
class Corrupted:
    """Images as the encoder sees them, and what each row's loss compares."""

    seen: Tensor
    """[N, C, H, W]: what is unknown is 0; small images are repeated."""
    mask: Tensor
    """[N, 1, H, W]."""
    factor: Tensor
    """[N]: 1 where the image wasn't made smaller."""


def factors_of(height: int, width: int) -> tuple[int, ...]:
    """The factors by which images of this size are made smaller."""
    return tuple(
        factor
        for factor in FACTORS
        if not height % factor
        and not width % factor
        and min(height, width) // factor >= _LEAST_SIDE
    )


def corrupt(img: Tensor, generator: torch.Generator) -> Corrupted:
    """Half of the images stay whole, others are masked, others made smaller and repeated."""
    num, _, height, width = img.shape
    kind = torch.rand(num, generator=generator)
    mask = torch.where(
        ((kind >= _PLAIN) & (kind < _MASKED))[:, None, None, None],
        random_masks(num, height, width, generator),
        torch.ones(num, 1, height, width),
    )
    factor = torch.ones(num, dtype=torch.int64)
    seen = img
    if factors := factors_of(height, width):
        pick = torch.randint(len(factors), (num,), generator=generator)
        small = torch.tensor(factors)[pick]
        factor = torch.where(kind >= _MASKED, small, factor)
        for each in factors:
            rows = (factor == each)[:, None, None, None]
            seen = torch.where(rows, repeated(shrunk(img, each), each), seen)
    return Corrupted(seen * mask, mask, factor)


def shrunk(img: Tensor, factor: int) -> Tensor:
    """Averages blocks of factor x factor pixels."""
    return functional.avg_pool2d(img, factor)


def repeated(img: Tensor, factor: int) -> Tensor:
    """Repeats every pixel factor x factor times."""
    return img.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


def random_masks(num: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Masks with a rectangle unknown, or all but a rectangle, or cells of a grid at random."""
    y, x = torch.arange(height)[:, None], torch.arange(width)[None, :]
    draw = torch.rand(num, 5, generator=generator)
    tall, wide = (draw[:, 0] * 0.5 + 0.2) * height, (draw[:, 1] * 0.5 + 0.2) * width
    top, left = draw[:, 2] * (height - tall), draw[:, 3] * (width - wide)
    inside = (
        (y >= top[:, None, None])
        & (y < (top + tall)[:, None, None])
        & (x >= left[:, None, None])
        & (x < (left + wide)[:, None, None])
    ).float()
    cells = torch.rand(num, 1, _GRID, _GRID, generator=generator) < draw[:, 4, None, None, None]
    scattered = functional.interpolate(cells.float(), (height, width))[:, 0]
    kind = torch.rand(num, generator=generator)[:, None, None]
    mask = torch.where(kind < 0.5, 1 - inside, torch.where(kind < 0.75, inside, scattered))
    return mask[:, None]


def compared(img: Tensor, made: Tensor, given: Corrupted) -> Tensor:
    """Mean squared difference of each row where something is known of it, [N].

    In whole and masked images pixel by pixel, in small ones block by block.
    """
    weight = given.mask / given.mask.mean((1, 2, 3), keepdim=True).clamp_min(1e-3)
    total = ((img - made).square() * weight).mean((1, 2, 3))
    for factor in set(given.factor.tolist()) - {1}:
        blocks = (shrunk(img, factor) - shrunk(made, factor)).square().mean((1, 2, 3))
        total = torch.where(given.factor == factor, blocks, total)
    return total
