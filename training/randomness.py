"""Randomness keyed by (seed, purpose, cur_nimg), as in NVlabs' edm2.

What a step draws depends on where the training is, never on how it came there. So there is no
random state to save: a run resumed at cur_nimg draws what the uninterrupted run draws.
"""

import hashlib
from functools import lru_cache

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


def key(seed: int, purpose: str, cur_nimg: int) -> int:
    """A generator's seed in [0, 2**64).

    torch's CPU generator uses the lower 32 bits only, so these are a bijection of cur_nimg: no two
    steps of the first 2**32 images share a key.
    """
    high, low = _base(seed, purpose)
    return high << 32 | _mix(cur_nimg + low & _MASK)


def normal(shape: tuple[int, ...], generator: torch.Generator, seed: int) -> Tensor:
    """Standard normal draws [shape] float32 on the generator's device, after seeding it."""
    generator.manual_seed(seed)
    return torch.randn(shape, generator=generator, device=generator.device)


def reseed(seed: int, device: torch.device) -> None:
    """Seeds the global generator of the device, which layers such as dropout draw from."""
    if device.type == "cuda":
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
