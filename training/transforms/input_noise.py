"""Input noise: random numbers that are added to the images before D sees them.

It acts on real and generated images alike and is a pure, differentiable function of the image and a
seed. Its weight and schedule are the recipe's. A new kind is one more entry.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from training.randomness import draw_rows, generator

NoiseFunction = Callable[[Tensor, float, int], Tensor]
"""(img [N, C, H, W] float32, weight, seed) to the noisy image."""


@dataclass(frozen=True, kw_only=True)
class InputNoise:
    """One kind of input noise."""

    apply: NoiseFunction
    """Adds the noise."""
    paper: str
    """Where it is from."""
    about: str
    """Says what the weight means, for --list."""


def instance_noise(img: Tensor, sigma: float, seed: int) -> Tensor:
    """Img + sigma N(0, 1), which makes the supports overlap (Arjovsky and Bottou 2017, sec. 3)."""
    noise = draw_rows(torch.randn, img, img.shape[1:], generator(img.device, seed))
    return img + sigma * noise


INPUT_NOISES: dict[str, InputNoise] = {
    "instance-noise": InputNoise(
        apply=instance_noise,
        paper="Sonderby et al. 2017, arXiv:1610.04490; Arjovsky and Bottou 2017, arXiv:1701.04862",
        about="D sees images with normal noise of this standard deviation; let it decay by "
        "--schedules instance-noise=0@KIMG",
    ),
}
