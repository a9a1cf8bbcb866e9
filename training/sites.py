"""Sites: the images at which D's gradient by its input is taken.

Besides the real and the generated images themselves, penalties look between and around them. A
site is a pure function of the two batches and a random generator; a new one is one more entry.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Side = str
"""real or fake: the images that the objective is about."""

Site = str
"""A side, or an entry of SITES."""

DRAGAN_SPREAD = 0.5  # of the data's standard deviation (Kodali et al. 2017, their code)


def interpolated(real_img: Tensor, fake_img: Tensor, generator: torch.Generator) -> Tensor:
    """A real + (1 - a) fake, a ~ U(0, 1) for each pair (Gulrajani et al. 2017, alg. 1).

    real_img, fake_img: [N, ...] float32. Returns [N, ...].
    """
    share = _uniform(real_img, (len(real_img), *[1] * (real_img.dim() - 1)), generator)
    return torch.lerp(fake_img, real_img, share)


def perturbed(real_img: Tensor, fake_img: Tensor, generator: torch.Generator) -> Tensor:
    """Real + s/2 U(0, 1), s the standard deviation of all real values (Kodali et al. 2017).

    real_img: [N, ...] float32; fake_img is not looked at. Returns [N, ...].
    """
    noise = _uniform(real_img, real_img.shape, generator)
    return real_img + DRAGAN_SPREAD * real_img.std() * noise


SITES: dict[Site, Callable[[Tensor, Tensor, torch.Generator], Tensor]] = {
    "interpolated": interpolated,
    "perturbed": perturbed,
}


def _uniform(like: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=like.device, dtype=like.dtype)
