"""What is cheap to know of a training's course: the path between two points of it, and G's shape.

Along the line w_a = (1 - a) w_0 + a w_1 the field is compared with the line's direction (Berard et
al. 2020, arXiv:1906.04848, sec. 4): where cos angle(v, w_0 - w_1) passes from - to + at the end,
w_1 attracts; a bump there, without a change of sign, is rotation around it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from training.stability.spectrum import Floats

_FIRST, _LAST = -0.1, 1.1


@dataclass(frozen=True, kw_only=True)
class PathAngle:
    """The field along a line."""

    shares: Floats
    """a, [num], from -0.1 to 1.1."""
    cosines: Floats
    """cos of the angle between v(w_a) and w_0 - w_1, [num]: negative where v leads on to w_1."""
    speeds: Floats
    """|v(w_a)|, [num]."""

    @property
    def attraction(self) -> float:
        """Cosine beyond the end less that before it, from -2 to 2: above 0 the end attracts."""
        return float(self._beyond.mean() - self._before.mean())

    @property
    def _before(self) -> Floats:
        return self.cosines[(self.shares > 0.9) & (self.shares < 1)]

    @property
    def _beyond(self) -> Floats:
        return self.cosines[self.shares > 1]


def path_angle(
    field: Callable[[Tensor], Tensor], start: Tensor, end: Tensor, *, num: int = 100
) -> PathAngle:
    """Computes the field along the line through two places.

    Args:
        field: v, [n] to [n].
        start: w_0, [n].
        end: w_1, [n].
        num: points.
    """
    shares = np.linspace(_FIRST, _LAST, num)
    back = start - end
    length = back.norm()
    cosines, speeds = [], []
    for share in shares:
        v = field(torch.lerp(start, end, float(share)))
        speed = v.norm()
        speeds.append(speed.item())
        cosines.append((torch.dot(v, back) / (speed * length).clamp_min(1e-300)).item())
    return PathAngle(shares=shares, cosines=np.array(cosines), speeds=np.array(speeds))


def conditioning(G: nn.Module, z: Tensor, label: Tensor | None) -> Floats:
    """The condition number of dG/dz at each latent, [N] (Odena et al. 2018, arXiv:1802.08768).

    The ratio of the largest to the smallest singular value of [pixels, z_dim]; infinite where a
    direction of the latent changes nothing. Odena et al. find its spread to go with bad training.

    Args:
        G: float64, in evaluation mode, so that rows don't mix.
        z: [N, z_dim] float64.
        label: [N] int64 or None.
    """
    leaf = z.detach().requires_grad_()
    img = G(leaf, label).flatten(1)
    y = torch.zeros_like(img, requires_grad=True)
    (pulled,) = torch.autograd.grad(img, leaf, y, create_graph=True)
    columns = [
        torch.autograd.grad(pulled[:, index].sum(), y, retain_graph=True)[0]
        for index in range(z.shape[1])
    ]
    singular = torch.linalg.svdvals(torch.stack(columns, dim=2)).cpu().numpy()
    # Fewer pixels than latents: the others change nothing.
    smallest = singular[:, -1] if img.shape[1] >= z.shape[1] else np.zeros(len(z))
    tiny = singular[:, 0] * np.finfo(np.float64).eps
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = np.where(smallest > tiny, singular[:, 0] / smallest, np.inf)
    return found
