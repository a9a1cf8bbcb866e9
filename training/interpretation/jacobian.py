"""How a generator's pixels move with its latent: E[J^T J], and its eigenvectors.

J = dG/dz is never formed for more than a few latents. Its columns are Jacobian-vector products, one
for each coordinate of z: exact, for any family of networks. They are taken by differentiating twice
backwards, since the rectifiers of `models.networks` have no forward mode.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

Make = Callable[[Tensor, Tensor | None], Tensor]
"""Latents [N, dim] (+ labels [N]) to images [N, C, H, W] in [-1, 1]."""

MAX_SIDE = 128
"""Larger images are averaged down to it before their change is measured."""
_WORK = 2**25  # products times pixels: a minute of a small network on two cores
_MOST, _LEAST = 256, 16  # latents
_JACOBIAN_BYTES = 256 << 20


@dataclass(frozen=True)
class Eigen:
    """Eigenvectors of a symmetric matrix as rows, the largest eigenvalue first."""

    vectors: Tensor
    """[K, dim], of length 1."""
    values: Tensor
    """[K] float64, 0 or more."""


def num_latents(dim: int, num_pixels: int) -> int:
    """How many latents E[J^T J] is a mean over: 256, or fewer of large images, at least 16."""
    return max(_LEAST, min(_MOST, _WORK // (dim * num_pixels)))


def second_moment(make: Make, z: Tensor, label: Tensor | None = None) -> Tensor:
    """E[J^T J] over some latents: [dim, dim] float64.

    u^T M u is the mean squared change of all pixel values, summed, for a step along u of length 1.

    Args:
        make: the generator, in evaluation mode.
        z: latents [N, dim] of its type, on its device.
        label: [N], for conditional models.
    """
    dim = z.shape[1]
    total = torch.zeros(dim, dim, dtype=torch.float64, device=z.device)
    for rows in _chunks(make, z, label):
        part = None if label is None else label[rows]
        J = columns(make, z[rows], torch.eye(dim, dtype=z.dtype, device=z.device), part)
        J = J.flatten(1).double()  # [dim, rows * pixels]
        total += J @ J.T
    return (total / len(z)).cpu()


def columns(make: Make, z: Tensor, directions: Tensor, label: Tensor | None = None) -> Tensor:
    """J u for each of K directions [K, dim] at each of N latents: [K, N, pixels]."""
    with torch.enable_grad():
        at = z.detach().requires_grad_(True)
        images = pooled(make(at, label)).flatten(1)
        # J^T v is linear in v, whatever v is; its derivative by v, along u, is J u.
        v = torch.zeros_like(images, requires_grad=True)
        (back,) = torch.autograd.grad(images, at, v, create_graph=True)
        parts = [
            torch.autograd.grad(back, v, u.expand_as(back), retain_graph=True)[0]
            for u in directions
        ]
    return torch.stack(parts)


def pixel_change(make: Make, z: Tensor, directions: Tensor, label: Tensor | None = None) -> Tensor:
    """E|J u|^2 of K directions [K, dim] over N latents, [K] float64."""
    total = torch.zeros(len(directions), dtype=torch.float64, device=z.device)
    for rows in _chunks(make, z, label, num_columns=len(directions)):
        part = None if label is None else label[rows]
        total += columns(make, z[rows], directions, part).double().square().sum((1, 2))
    return (total / len(z)).cpu()


def eigen(moment: Tensor, num: int) -> Eigen:
    """The first eigenvectors of a symmetric matrix [dim, dim], at most num.

    Their sign is that which makes the component of largest magnitude positive.
    """
    values, vectors = torch.linalg.eigh(moment.double())
    values, rows = values.flip(0)[:num].clamp(min=0), vectors.T.flip(0)[:num]
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    return Eigen(rows * largest.sign(), values)


def pooled(img: Tensor) -> Tensor:
    """Images [N, C, H, W] averaged down to MAX_SIDE a side at most."""
    factor = -(-max(img.shape[2:]) // MAX_SIDE)
    return functional.avg_pool2d(img, factor, ceil_mode=True) if factor > 1 else img


def _chunks(
    make: Make, z: Tensor, label: Tensor | None, num_columns: int | None = None
) -> Iterator[slice]:
    """Slices of latents whose Jacobians fit into memory."""
    with torch.no_grad():
        one = pooled(make(z[:1], None if label is None else label[:1]))
    size = one.numel() * (num_columns or z.shape[1]) * one.element_size()
    step = max(1, min(len(z), _JACOBIAN_BYTES // size))
    for start in range(0, len(z), step):
        yield slice(start, start + step)
