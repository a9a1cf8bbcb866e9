"""Projection: the latents of many images at once, by gradient descent through the generator.

The encoder's answer is where it starts, or draws from the prior where there is no encoder. Adam
moves every restart of every image by itself; rows never touch, so that an image's answer does not
depend on those beside it. The prior keeps |z| near sqrt(d) (z), or w near the mean of w (w).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from models.networks import Mapped
from training.inversion.corruption import shrunk
from training.inversion.fit import Subject

_PRIOR = 0.002  # of (|z|^2 / d - 1)^2, against pixels in [-1, 1]
_PRIOR_W = 0.002  # of the squared distance from the mean of w, in its standard deviations
_FLOOR = 0.05  # of the rate at the end
_MOMENT_ROWS = 4096
_CHUNK_PIXELS = 2**21  # rows of a batch, so that the maps of many large images fit

Space = Literal["z", "w"]


@dataclass(frozen=True, kw_only=True)
class ProjectionConfig:
    """How an image is refined."""

    steps: int = 200
    lr: float = 0.05
    space: Space = "z"
    on_sphere: bool = False
    """Keep |z| = sqrt(d) exactly, as enlarging does (PULSE: Menon et al. 2020)."""


@dataclass(frozen=True, eq=False)
class Wanted:
    """What the images must agree with."""

    img: Tensor
    """[N, C, H, W] in [-1, 1]; or [N, C, H / factor, W / factor]."""
    mask: Tensor
    """[N, 1, H, W]: 1 where a pixel is known; of small images all of it."""
    factor: int = 1
    label: Tensor | None = None
    """[N], or [N, K] for a class of each start; of conditional models."""


@dataclass(frozen=True, eq=False)
class Projected:
    """Answers, K of each of N images."""

    latent: Tensor
    """[N, K, dim]: z, or w."""
    made: Tensor
    """[N, K, C, H, W] in [-1, 1]."""
    error: Tensor
    """[N, K]: mean squared difference where something is known, in [-1, 1] squared."""

    def best(self) -> "Projected":
        """The best of each image, K = 1."""
        rows = torch.arange(len(self.error))
        pick = self.error.argmin(1)
        return Projected(
            self.latent[rows, pick][:, None],
            self.made[rows, pick][:, None],
            self.error[rows, pick][:, None],
        )


def project(
    subject: Subject,
    wanted: Wanted,
    starts: Tensor,
    config: ProjectionConfig,
    say: Callable[[str], None] = lambda _line: None,
) -> Projected:
    """Refines K starts of each of N images. starts: z, [N, K, z_dim]; all are refined."""
    num, restarts, z_dim = starts.shape
    pixels = subject.shape.height * subject.shape.width * restarts
    rows_at_once = max(1, _CHUNK_PIXELS // pixels)
    label = wanted.label
    if label is not None and label.ndim == 1:
        label = label[:, None].expand(-1, restarts)
    parts = []
    for first in range(0, num, rows_at_once):
        rows = slice(first, first + rows_at_once)
        part = Wanted(
            wanted.img[rows].repeat_interleave(restarts, 0),
            wanted.mask[rows].repeat_interleave(restarts, 0),
            wanted.factor,
            None if label is None else label[rows].flatten(),
        )
        parts.append(_refined(subject, part, starts[rows].reshape(-1, z_dim), config))
        say(f"projected {min(first + rows_at_once, num)} of {num} images, {restarts} starts each")
    latent, made, error = (torch.cat(values) for values in zip(*parts, strict=True))
    shape = subject.shape
    return Projected(
        latent.reshape(num, restarts, -1),
        made.reshape(num, restarts, shape.channels, shape.height, shape.width),
        error.reshape(num, restarts),
    )


def _refined(
    subject: Subject, wanted: Wanted, z: Tensor, config: ProjectionConfig
) -> tuple[Tensor, Tensor, Tensor]:
    space = _Space(subject, config, wanted.label)
    free = space.enter(z).clone().requires_grad_(True)
    optim = torch.optim.Adam([free], lr=config.lr, betas=(0.9, 0.99))
    best, least = free.detach().clone(), torch.full((len(z),), torch.inf)
    for step in range(config.steps + 1):
        error = errors(space.made(free), wanted)
        with torch.no_grad():  # the best of the way, not its end
            better = error < least
            best = torch.where(better[:, None], free, best)
            least = torch.where(better, error, least)
        if step == config.steps:
            break
        for group in optim.param_groups:
            group["lr"] = config.lr * max(_FLOOR, 1 - step / config.steps)
        optim.zero_grad(set_to_none=True)
        (error + space.prior(free)).sum().backward()  # type: ignore[no-untyped-call]
        optim.step()
    with torch.no_grad():
        latent = space.kept(best)
        made = space.made(best)
    return latent, made, least


def errors(made: Tensor, wanted: Wanted) -> Tensor:
    """Mean squared difference of each row where something is known, [N]."""
    if wanted.factor > 1:
        return (shrunk(made, wanted.factor) - wanted.img).square().mean((1, 2, 3))
    weight = wanted.mask / wanted.mask.mean((1, 2, 3), keepdim=True).clamp_min(1e-6)
    return ((made - wanted.img).square() * weight).mean((1, 2, 3))


class _Space:
    """The space that is searched: z, the sphere of z, or w."""

    def __init__(self, subject: Subject, config: ProjectionConfig, label: Tensor | None) -> None:
        self._G, self._config, self._label = subject.G, config, label
        self._root = math.sqrt(subject.z_dim)
        self._mean, self._std = torch.zeros(1), torch.ones(1)
        if config.space == "w":
            mapping = mapped(subject.G).mapping
            with torch.no_grad():
                z = torch.randn(
                    _MOMENT_ROWS, subject.z_dim, generator=torch.Generator().manual_seed(0)
                )
                classes = subject.shape.num_classes
                labels = torch.arange(len(z)) % classes if classes else None
                w = mapping(z, labels)
            self._mean, self._std = w.mean(0), w.std(0).clamp_min(1e-4)

    def enter(self, z: Tensor) -> Tensor:
        """What is moved: z, or w in standard deviations from its mean."""
        if self._config.space == "z":
            return z
        with torch.no_grad():
            w: Tensor = mapped(self._G).mapping(z, self._label)
        normal: Tensor = (w - self._mean) / self._std
        return normal

    def kept(self, free: Tensor) -> Tensor:
        """The latent itself."""
        if self._config.space == "w":
            w: Tensor = self._mean + self._std * free
            return w
        if self._config.on_sphere:
            unit: Tensor = free / free.norm(dim=1, keepdim=True).clamp_min(1e-6)
            return unit * self._root
        return free

    def made(self, free: Tensor) -> Tensor:
        """The images, [N, C, H, W]."""
        latent = self.kept(free)
        if self._config.space == "w":
            found: Tensor = mapped(self._G).synthesis(latent)
        else:
            found = self._G(latent, self._label)
        return found

    def prior(self, free: Tensor) -> Tensor:
        """What is added to each row's error, [N]."""
        if self._config.space == "w":
            far: Tensor = _PRIOR_W * free.square().mean(1)
            return far
        if self._config.on_sphere:
            return torch.zeros(len(free))
        near: Tensor = _PRIOR * (free.square().mean(1) - 1).square()
        return near


def mapped(G: nn.Module) -> Mapped:
    """G, which has a mapping network."""
    assert isinstance(G, Mapped)
    return G
