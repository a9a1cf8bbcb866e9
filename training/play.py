"""One play of the game: a batch, the images of G, what D says of them, the gradients of that.

Differentiable throughout and free of side effects on its inputs. Knows no loss and no optimiser.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Side = Literal["real", "fake"]

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

Player = Callable[[Tensor, Tensor | None], Tensor]
"""A network as a function: the module itself, or `functional_call` with its parameters bound."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """All that a step sees besides the parameters: data and randomness."""

    real_img: Tensor
    """[N, C, H, W] float32 in [-1, 1]."""
    label: Tensor | None
    """[N] int64 of the real images, asked of the fake ones too; None for unconditional games."""
    z: Tensor
    """[N, z_dim] float32, standard normal."""
    key: int
    """Seed of any further randomness: dropout, interpolation, noise."""
    step: int
    """Number of steps before this one; terms with an interval look at it."""


@dataclass(frozen=True, kw_only=True)
class Play:
    """What penalties look at."""

    D: Player
    """The discriminator."""
    batch: Batch
    """Data and randomness."""
    fake_img: Tensor
    """[N, C, H, W] float32 in [-1, 1]."""
    fake_logits: Tensor
    """[N] float32."""
    real_logits: Tensor | None
    """[N] float32; None in a step of G whose loss doesn't need it."""
    gradients: dict[Side, Tensor]
    """dD/dx for the sides that were asked for, [N, C, H, W], differentiable again."""

    def gradient(self, side: Side) -> Tensor:
        """The gradient of each logit by its own image, [N, C, H, W] float32."""
        return self.gradients[side]


def play(
    D: Player,
    batch: Batch,
    fake_img: Tensor,
    *,
    gradients: frozenset[Side] = frozenset(),
    judge_real: bool = True,
    joint: bool = True,
) -> Play:
    """Lets D judge a batch.

    Args:
        D: images [N, C, H, W] and labels [N] to logits [N].
        batch: data and randomness.
        fake_img: G's images for the batch, [N, C, H, W] float32.
        gradients: sides by whose images the logits are differentiated.
        judge_real: False where only the fake logits matter.
        joint: one pass of D over real and fake images together, which is faster. The result is the
            same only if D treats each image by itself (`rows_are_independent`).
    """
    images: dict[Side, Tensor] = {"real": batch.real_img} if judge_real else {}
    images["fake"] = fake_img
    images = {side: _leaf(img) if side in gradients else img for side, img in images.items()}
    logits = _judge(D, images, batch.label, joint=joint and len(gradients) != 1)
    sides = [side for side in images if side in gradients]
    found = _input_gradients([logits[side] for side in sides], [images[side] for side in sides])
    return Play(
        D=D,
        batch=batch,
        fake_img=images["fake"],
        fake_logits=logits["fake"],
        real_logits=logits.get("real"),
        gradients=dict(zip(sides, found, strict=True)),
    )


def rows_are_independent(D: nn.Module) -> bool:
    """False where D normalises over the batch: real and fake images then go through it apart."""
    return not any(isinstance(module, _BATCH_NORMS) for module in D.modules())


def _judge(
    D: Player, images: dict[Side, Tensor], label: Tensor | None, *, joint: bool
) -> dict[Side, Tensor]:
    if not joint or len(images) == 1:
        return {side: D(img, label) for side, img in images.items()}
    labels = None if label is None else label.repeat(len(images))
    logits = D(torch.cat(list(images.values())), labels)
    return dict(zip(images, logits.chunk(len(images)), strict=True))


def _leaf(img: Tensor) -> Tensor:
    """The image, differentiable; not the caller's tensor, whose flags are the caller's."""
    return img if img.requires_grad else img.detach().requires_grad_()


def _input_gradients(logits: list[Tensor], images: list[Tensor]) -> tuple[Tensor, ...]:
    """Each logit by its own image: the gradient of their sum, as rows don't mix."""
    if not images:
        return ()
    return torch.autograd.grad([part.sum() for part in logits], images, create_graph=True)
