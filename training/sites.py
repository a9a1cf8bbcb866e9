"""Sites: the images at which D's gradient by its input is taken.

Besides the real and the generated images themselves, penalties look between and around them. A
site is a pure function of the two batches, a random generator and the real images of the whole
batch, where it is computed in parts; a new one is one more entry.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from models.networks.rows import per_row

Side = str
"""real or fake: the images that the objective is about."""

Site = str
"""A side, or an entry of SITES."""

DRAGAN_SPREAD = 0.5  # of the data's standard deviation (Kodali et al. 2017, their code)


def interpolated(
    real_img: Tensor, fake_img: Tensor, generator: torch.Generator, whole_real: Tensor
) -> Tensor:
    """A real + (1 - a) fake, a ~ U(0, 1) for each pair (Gulrajani et al. 2017, alg. 1).

    real_img, fake_img: [N, ...] float32; whole_real is not looked at. Returns [N, ...].
    """
    share = _uniform(real_img, [1] * (real_img.dim() - 1), generator)
    return torch.lerp(fake_img, real_img, share)


def perturbed(
    real_img: Tensor, fake_img: Tensor, generator: torch.Generator, whole_real: Tensor
) -> Tensor:
    """Real + s/2 U(0, 1), s the standard deviation of all real values (Kodali et al. 2017).

    real_img, whole_real: [N, ...] float32; fake_img is not looked at. Returns [N, ...].
    """
    noise = _uniform(real_img, real_img.shape[1:], generator)
    return real_img + DRAGAN_SPREAD * whole_real.std() * noise


SITES: dict[Site, Callable[[Tensor, Tensor, torch.Generator, Tensor], Tensor]] = {
    "interpolated": interpolated,
    "perturbed": perturbed,
}


def _uniform(like: Tensor, size: Sequence[int], generator: torch.Generator) -> Tensor:
    dtype, place = like.dtype, like.device
    return per_row(
        lambda num: torch.rand(num, *size, generator=generator, device=place, dtype=dtype),
        len(like),
    )
