"""Penalty points: the images at which penalties take D's gradient by its input.

These are the real and the generated images themselves, and images between and around them. A point
of the second kind is a pure function of the two batches, a random generator and the real images of
the whole batch, where that is computed in parts; a new one is one more entry. All are images before
augmentation and input noise (`training.game.losses.Game`). Where D judges several images at once
(PacGAN), a row of the batches is a pack.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from training.randomness import draw_rows

Point = str
"""real, fake, or an entry of PENALTY_POINTS."""

SIDES: tuple[Point, ...] = ("real", "fake")
"""The images that the objective compares."""

DRAGAN_SPREAD = 0.5  # of the data's standard deviation (Kodali et al. 2017, their code)


def interpolated(
    real_img: Tensor, fake_img: Tensor, generator: torch.Generator, whole_real: Tensor
) -> Tensor:
    """A real + (1 - a) fake, a ~ U(0, 1) for each pair (Gulrajani et al. 2017, alg. 1).

    real_img, fake_img: [N, ...] float32; whole_real is not used. Returns [N, ...].
    """
    share = draw_rows(torch.rand, real_img, [1] * (real_img.dim() - 1), generator)
    return torch.lerp(fake_img, real_img, share)


def perturbed(
    real_img: Tensor, fake_img: Tensor, generator: torch.Generator, whole_real: Tensor
) -> Tensor:
    """Real + a s/2 u, s the standard deviation of all real values, a ~ U(0, 1) for each image.

    u ~ U(0, 1) for each value. This is what the authors' code does (kodalinaveen3/DRAGAN): it goes
    a share a of the way from x to x + s/2 u. The paper's text (Kodali et al. 2017, sec. 2.2) has
    normal noise of a constant variance instead, and no share.
    real_img, whole_real: [N, ...] float32; fake_img is not used. Returns [N, ...].
    """
    noise = draw_rows(torch.rand, real_img, real_img.shape[1:], generator)
    share = draw_rows(torch.rand, real_img, [1] * (real_img.dim() - 1), generator)
    return real_img + share * (DRAGAN_SPREAD * whole_real.std() * noise)


PENALTY_POINTS: dict[Point, Callable[[Tensor, Tensor, torch.Generator, Tensor], Tensor]] = {
    "interpolated": interpolated,
    "perturbed": perturbed,
}
