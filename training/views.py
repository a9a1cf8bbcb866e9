"""Views: what D sees of an image instead of the image itself.

A view acts on real and generated images alike and is a pure, differentiable function of the image
and a seed. Its weight and schedule are the recipe's. A new view is one more entry.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from models.networks.rows import per_row

View = Callable[[Tensor, float, int], Tensor]
"""(img [N, C, H, W] float32, weight, seed) to what D sees of it."""


@dataclass(frozen=True, kw_only=True)
class Sight:
    """An entry of VIEWS."""

    view: View
    """The function."""
    paper: str
    """Where it is from."""
    about: str
    """What the weight means."""


def instance_noise(img: Tensor, sigma: float, seed: int) -> Tensor:
    """Img + sigma N(0, 1): the supports overlap (Arjovsky and Bottou 2017, sec. 3)."""
    generator = torch.Generator(img.device).manual_seed(seed % 2**63)
    size, dtype, place = img.shape[1:], img.dtype, img.device
    noise = per_row(
        lambda num: torch.randn(num, *size, generator=generator, device=place, dtype=dtype),
        len(img),
    )
    return img + sigma * noise


VIEWS: dict[str, Sight] = {
    "instance-noise": Sight(
        view=instance_noise,
        paper="Sonderby et al. 2017, arXiv:1610.04490; Arjovsky and Bottou 2017, arXiv:1701.04862",
        about="D sees images with normal noise of this standard deviation; let it decay by "
        "--schedules instance-noise=0@KIMG",
    ),
}
