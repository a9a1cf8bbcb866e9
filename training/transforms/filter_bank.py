"""Amplifies octaves of an image's detail, as ADA's image-space filtering does.

The octaves come from a symmetric wavelet of four taps applied three times (Karras et al. 2020,
arXiv:2006.06676, app. B): with all gains 1 the image stays as it is. This module draws nothing.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from training.randomness import sent

_ROOT_3 = math.sqrt(3)
# Daubechies' wavelet of two vanishing moments (sym2), of unit length.
_LOW = torch.tensor([1 - _ROOT_3, 3 - _ROOT_3, 3 + _ROOT_3, 1 + _ROOT_3], dtype=torch.float64) / (
    4 * math.sqrt(2)
)
_SIGNS = torch.tensor([1, -1, 1, -1], dtype=torch.float64)


def filtered(img: Tensor, gains: Tensor) -> Tensor:
    """Multiplies each octave by its gain, along rows and along columns.

    img: [N, C, H, W]; gains: [N, 4], from coarse to fine. Returns [N, C, H, W]; edges are mirrored.
    Alpha, a fourth channel, stays as it is.
    """
    img, alpha = img[:, :3], img[:, 3:]
    num, channels, height, width = img.shape
    bank = sent(_BANK, img.device)
    taps = (gains.float() @ bank).to(img.dtype).repeat_interleave(channels, 0)
    margin = bank.shape[1] // 2
    rows = torch.arange(-margin, height + margin, device=img.device)
    columns = torch.arange(-margin, width + margin, device=img.device)
    x = img[:, :, mirrored(rows, height)][:, :, :, mirrored(columns, width)]
    x = x.reshape(1, num * channels, *x.shape[2:])
    x = functional.conv2d(x, taps[:, None, None, :], groups=num * channels)
    x = functional.conv2d(x, taps[:, None, :, None], groups=num * channels)
    x = x.view(num, channels, height, width)
    return torch.cat([x, alpha], 1) if alpha.shape[1] else x


def mirrored(index: Tensor, size: int) -> Tensor:
    """Maps whole numbers to 0 .. size - 1, mirrored at the first and last pixel."""
    if size == 1:
        return torch.zeros_like(index, dtype=torch.int64)
    # The mirror lies on a pixel, not between two: 0 1 2 1 0 for size 3.
    period = 2 * (size - 1)
    folded = index.to(torch.int64) % period
    return torch.where(folded < size, folded, period - folded)


def filter_bank() -> Tensor:
    """The four octaves' symmetric filters, from coarse to fine, [4, taps]; their sum is a unit."""
    low = _convolved(_LOW, _LOW.flip(0)) / 2
    high = _convolved(_LOW * _SIGNS, (_LOW * _SIGNS).flip(0)) / 2
    coarser = _convolved(_stretched(low, 2), low)
    filters = [
        _convolved(_stretched(low, 4), coarser),
        _convolved(_stretched(high, 4), coarser),
        _convolved(_stretched(high, 2), low),
        high,
    ]
    num = len(filters[0])
    return torch.stack([functional.pad(f, [(num - len(f)) // 2] * 2) for f in filters])


def _stretched(taps: Tensor, by: int) -> Tensor:
    """Puts by - 1 zeros between taps."""
    out = taps.new_zeros((len(taps) - 1) * by + 1)
    out[::by] = taps
    return out


def _convolved(a: Tensor, b: Tensor) -> Tensor:
    padded = functional.pad(a, [len(b) - 1] * 2)
    return functional.conv1d(padded[None, None], b.flip(0)[None, None]).flatten()


_BANK = filter_bank().float()
