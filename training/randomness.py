"""Randomness keyed by (seed, purpose, cur_nimg), as in NVlabs' edm2.

A step's draws depend on how many images were shown before it, never on the steps before. So there
is no random state to save: a run resumed at cur_nimg draws what the uninterrupted run draws.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from models.networks.row_rng import per_row

_MASK = 0xFFFFFFFF


def key(seed: int, purpose: str, cur_nimg: int) -> int:
    """Returns a generator's seed in [0, 2**64).

    torch's CPU generator uses the lower 32 bits only, so these are a bijection of cur_nimg: no two
    steps of the first 2**32 images share a key.
    """
    high, low = _base(seed, purpose)
    return high << 32 | _mix(cur_nimg + low & _MASK)


def generator(device: torch.device, seed: int) -> torch.Generator:
    """Returns a new generator on the device. seed: any integer of 0 or more."""
    return torch.Generator(device).manual_seed(seed % 2**63)


def draw_rows(
    draw: Callable[..., Tensor], img: Tensor, size: Sequence[int], generator: torch.Generator
) -> Tensor:
    """Draws a tensor of that size for each image: [N, *size], of img's type and device.

    Rows of a larger batch (`models.networks.row_rng`) get what they would get in the whole one.
    draw: torch.rand or torch.randn.
    """
    dtype, device = img.dtype, img.device
    return per_row(
        lambda num: draw(num, *size, generator=generator, dtype=dtype, device=device), len(img)
    )


def normal(shape: tuple[int, ...], generator: torch.Generator, seed: int) -> Tensor:
    """Seeds the generator, and draws [shape] float32 from N(0, 1) on its device."""
    generator.manual_seed(seed)
    return torch.randn(shape, generator=generator, device=generator.device)


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Copies a tensor of the host to the device, which is not waited for."""
    if device.type == "cuda" and not values.is_pinned():
        values = values.pin_memory()  # else the copy would wait for what the device is doing
    return values.to(device, non_blocking=True)


def reseed(seed: int, device: torch.device) -> None:
    """Seeds the global generator of the device, which layers such as dropout draw from."""
    if device.type == "cuda":
        with torch.cuda.device(device):  # which need not be the first one
            torch.cuda.manual_seed(seed % 2**63)
    else:
        torch.default_generator.manual_seed(seed % 2**63)


@lru_cache(maxsize=64)
def _base(seed: int, purpose: str) -> tuple[int, int]:
    digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def _mix(x: int) -> int:
    """MurmurHash3's 32-bit finaliser, a bijection: neighbours get unlike seeds."""
    x = (x ^ x >> 16) * 0x85EBCA6B & _MASK
    x = (x ^ x >> 13) * 0xC2B2AE35 & _MASK
    return x ^ x >> 16
