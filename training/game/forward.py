"""One forward pass of the game: images of G, the logits of D, gradients of those by images.

Everything is differentiable, and no input is changed. This module knows no loss and no optimiser.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm  # the base of every form, distributed ones too

from models.networks.family import widen
from models.networks.row_rng import Rows
from training.game.penalty_points import PENALTY_POINTS, Point
from training.randomness import generator

Player = Callable[..., Any]
"""A network as a function: the module itself, or `Bound` to other parameters than its own."""


class Movable(Protocol):
    """A player whose parameters are given from outside, so that it is a function of them."""

    def __call__(self, *args: Tensor | None, **kwargs: object) -> Any:
        """Returns the network's output."""

    def parameters(self) -> list[Tensor]:
        """Returns the tensors that the player is a function of."""

    def moved(self, by: Sequence[Tensor]) -> "Movable":
        """Returns the same network with `by` added to its parameters, one tensor for each."""


class Bound:
    """A network with other parameters than its own: a pure function of them and its inputs."""

    def __init__(self, network: nn.Module, parameters: Mapping[str, Tensor]) -> None:
        """parameters: by name, as named_parameters has them; buffers stay the network's."""
        self.network = network
        self._named = dict(parameters)

    def __call__(self, *args: Tensor | None, **kwargs: object) -> Any:
        """Returns the network's output for these parameters."""
        return functional_call(self.network, self._named, args, kwargs)

    def parameters(self) -> list[Tensor]:
        """Returns the parameters that it is bound to."""
        return list(self._named.values())

    def moved(self, by: Sequence[Tensor]) -> "Bound":
        """Returns the network bound to the sums of its parameters and `by`."""
        steps = zip(self._named.items(), by, strict=True)
        return Bound(self.network, {name: value + step for (name, value), step in steps})


def parameters_of(player: Player) -> list[Tensor]:
    """Returns the parameters that training moves: those that require a gradient."""
    parameters: list[Tensor] = list(player.parameters())  # type: ignore[attr-defined]
    return [parameter for parameter in parameters if parameter.requires_grad]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """All that a loss depends on besides the parameters: data, randomness and progress."""

    real_img: Tensor
    """[N, C, H, W] float32 in [-1, 1]."""
    label: Tensor | None
    """[N] int64: classes of the real images, which G is asked for too; None without classes."""
    z: Tensor
    """[N, z_dim] float32, standard normal."""
    key: int
    """Seed of all other randomness: dropout, penalty points, image transforms."""
    step_D: int = 0
    """Number of D's steps before this one; decides whether D's lazy penalties are due."""
    step_G: int = 0
    """Number of G's steps before this one; decides whether G's lazy penalties are due."""
    cur_nimg: int = 0
    """Images shown before this step; decides the values of schedules."""
    path_length: Tensor | float = 0.0
    """The running mean that path lengths of G are drawn to; see `path_length` in penalties."""
    augment_p: Tensor | float = 0.0
    """The probability that adaptive augmentation has come to, in [0, 1]. A fixed probability is
    not read from here."""
    rows: Rows | None = None
    """Which rows of a larger batch these are; None where this is the whole batch."""
    whole_img: Tensor | None = None
    """The real images of that larger batch."""


@dataclass(frozen=True, kw_only=True)
class Forward:
    """The results of a pass through D, from which objective and penalties are computed."""

    D: Player
    """The discriminator."""
    batch: Batch
    """Data and randomness."""
    images: dict[Point, Tensor]
    """The images that D saw, after the transforms: fake ones, real ones unless the loss of G does
    without them, and penalty points. In a step of lazy penalties alone only what they need."""
    logits: dict[Point, Tensor]
    """D's outputs for them, [N] float32; N / packing where D sees several at once, as all below."""
    gradients: dict[Point, Tensor]
    """dD(T(x))/dx, T the image transforms, for the points that were asked for: [N, C, H, W],
    differentiable again."""
    features: dict[Point, Tensor] = field(default_factory=dict)
    """D's last features [N, F], where they were asked for."""
    G: Player | None = None
    """The generator."""
    transform_like_real: Callable[[Tensor], Tensor] = lambda img: img
    """Changes an image of G as the real image of its row was changed: with the same draws."""
    measured: dict[str, Tensor] = field(default_factory=dict)
    """Scalars that penalties found by the way, for the training's state and journal."""
    vector_field: tuple[Tensor, ...] = ()
    """The gradient of each player's objective by its own parameters, where it was asked for."""

    @property
    def fake_img(self) -> Tensor:
        """G's images as D saw them, [N, C, H, W] float32."""
        return self.images["fake"]

    @property
    def fake_logits(self) -> Tensor:
        """D's outputs for G's images, [N] float32."""
        return self.logits["fake"]

    @property
    def real_logits(self) -> Tensor | None:
        """D's outputs for real images, [N] float32; None in a step of G that needs none."""
        return self.logits.get("real")

    def gradient(self, point: Point) -> Tensor:
        """Returns the gradient of each logit by its own untransformed image, [N, C, H, W]."""
        return self.gradients[point]

    @cached_property
    def reconstruction(self) -> tuple[Tensor, Tensor, Tensor]:
        """The real images through G's encoder and back: (img, mu [N, z_dim], logvar [N, z_dim])."""
        assert self.G is not None
        batch = self.batch
        img, mu, logvar = self.G(batch.z, batch.label, img=batch.real_img)
        return widen(img), widen(mu), widen(logvar)


def run_discriminator(
    D: Player,
    batch: Batch,
    fake_img: Tensor,
    *,
    G: Player | None = None,
    transform: Callable[[Tensor, Point], Tensor] = lambda img, point: img,
    gradients: Collection[Point] = (),
    features: bool = False,
    with_real: bool = True,
    sides: bool = True,
    joint: bool = True,
    packing: int = 1,
) -> Forward:
    """Runs D on the real and generated images of a batch, and on penalty points.

    Args:
        D: images [N, C, H, W] and labels [N] to logits [N].
        batch: data and randomness.
        fake_img: G's images for the batch, [N, C, H, W] float32.
        G: the generator; only handed on to penalties.
        transform: (img, point) to the image that D sees instead.
        gradients: points by whose untransformed images the logits are differentiated.
        features: keep D's last features too.
        with_real: False where only the fake logits matter.
        sides: False where only the gradients matter: D sees no other points then.
        joint: one pass of D over the images of several points, which is faster. The result is the
            same only if D treats each image by itself (`rows_are_independent`).
        packing: images that D judges at once, as one of so many times the channels (Lin et al.
            2018, PacGAN). There is then a logit, and a gradient, for each pack: [N / packing, ...].
    """
    images = {"real": batch.real_img, "fake": fake_img} if with_real else {"fake": fake_img}
    images |= _penalty_points(gradients, batch, fake_img, packing)
    # The leaves lie before the transforms, so that gradients are those of D(T(x)) by x.
    images = {point: _leaf(img) if point in gradients else img for point, img in images.items()}
    if not sides:
        images = {point: img for point, img in images.items() if point in gradients}
    shown = {point: transform(img, point) for point, img in images.items()}
    logits: dict[Point, Tensor] = {}
    last_features: dict[Point, Tensor] = {}
    # Two groups, as a pass whose input requires a gradient costs more.
    for differentiated in (True, False):
        group = [point for point in shown if (point in gradients) == differentiated]
        for points in [group] if joint else [[point] for point in group]:
            if points:
                packs = [packed(shown[point], packing) for point in points]
                outputs = _run(D, packs, batch.label, features)
                logits.update(zip(points, outputs[0], strict=True))
                last_features.update(zip(points, outputs[1], strict=False))
    points = [point for point in images if point in gradients]
    found = _input_gradients([logits[point] for point in points], [images[p] for p in points])
    return Forward(
        G=G,
        D=D,
        batch=batch,
        images=shown,
        logits=logits,
        gradients={p: packed(each, packing) for p, each in zip(points, found, strict=True)},
        features=last_features,
    )


def packed(img: Tensor, num: int) -> Tensor:
    """Puts num images of a batch into the channels of one: [N, C, ...] to [N / num, num * C, ...].

    Pack i has the images i, i + N / num, ... of the batch.
    """
    if num == 1:
        return img
    return img.reshape(num, len(img) // num, *img.shape[1:]).transpose(0, 1).flatten(1, 2)


def unpacked(img: Tensor, num: int) -> Tensor:
    """Takes packs apart into the images of a batch: `packed` undone."""
    if num == 1:
        return img
    size = (len(img), num, img.shape[1] // num, *img.shape[2:])
    return img.reshape(size).transpose(0, 1).flatten(0, 1)


def rows_are_independent(D: nn.Module) -> bool:
    """Returns False where D mixes the images of a batch, so that real ones must go apart."""
    return not any(
        isinstance(module, _BatchNorm) or getattr(module, "mixes_rows", False)
        for module in D.modules()
    )


def _run(
    D: Player, images: list[Tensor], label: Tensor | None, with_features: bool
) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Returns the logits and, if wanted, features of each group of images, in one pass of D."""
    num = len(images)
    img = torch.cat(images) if num > 1 else images[0]
    # Labels are the real images', and every point has an image of each row.
    labels = label.repeat(num) if label is not None and num > 1 else label
    if with_features:
        logits, features = D(img, labels, with_features=True)
        return _float(logits).chunk(num), _float(features).chunk(num)
    return _float(D(img, labels)).chunk(num), ()


def _float(values: Tensor) -> Tensor:
    """Losses are computed in float32 where the network computes in bfloat16."""
    return values.float() if values.dtype == torch.bfloat16 else values


def _penalty_points(
    wanted: Collection[Point], batch: Batch, fake_img: Tensor, packing: int
) -> dict[Point, Tensor]:
    names = [name for name in PENALTY_POINTS if name in wanted]
    if not names:
        return {}
    real_img = batch.real_img
    whole_img = real_img if batch.whole_img is None else batch.whole_img
    # What D judges is a pack, so a point lies between two packs: all of its images have one share.
    real_img, fake_img = packed(real_img, packing), packed(fake_img, packing)
    # One generator for all: a point draws after those that stand before it in the registry.
    draws = generator(real_img.device, batch.key + 3)
    return {
        name: unpacked(PENALTY_POINTS[name](real_img, fake_img, draws, whole_img), packing)
        for name in names
    }


def _leaf(img: Tensor) -> Tensor:
    """Returns a differentiable image; not the caller's tensor, whose flags are the caller's."""
    return img if img.requires_grad else img.detach().requires_grad_()


def _input_gradients(logits: list[Tensor], images: list[Tensor]) -> tuple[Tensor, ...]:
    """Returns each logit's gradient by its own image: that of their sum, as rows don't mix."""
    if not images:
        return ()
    return torch.autograd.grad([part.sum() for part in logits], images, create_graph=True)
