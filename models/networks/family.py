"""What a family of networks is, and the registry that families enter by decorator.

Players are pure in (parameters, buffers, inputs, torch's global generator): forward changes nothing
but batch norm's running statistics, so that an analysis may bind parameters of its own
(`torch.func.functional_call`). A layer that mixes the rows of a batch says `mixes_rows = True`;
one that draws for each row does so by `models.networks.rows.per_row`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class ImageShape:
    """What the networks see and make."""

    resolution: int
    """Height and width in pixels."""
    channels: int
    """1 (grey) or 3 (RGB)."""
    num_classes: int = 0
    """0 for unconditional networks."""

    def __post_init__(self) -> None:
        """Refuses shapes that no family could make."""
        if self.channels not in (1, 3):
            raise ValueError(f"channels is {self.channels}, allowed are 1 (grey) and 3 (RGB)")
        if self.resolution < 1:
            raise ValueError(f"resolution is {self.resolution}, must be at least 1")
        if self.num_classes < 0:
            raise ValueError(f"num_classes is {self.num_classes}, must be 0 or more")


class Discriminator(nn.Module):
    """Base of every D: images to features, features to logits."""

    def features(self, img: Tensor, label: Tensor | None = None) -> Tensor:
        """Images [N, C, H, W] (+ label [N]) to the last layer before the logit, [N, F]."""
        raise NotImplementedError

    def logits(self, features: Tensor, label: Tensor | None = None) -> Tensor:
        """Features [N, F] (+ label [N]) to logits [N]."""
        raise NotImplementedError

    def forward(
        self, img: Tensor, label: Tensor | None = None, *, with_features: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits [N]; with_features: (logits [N], features [N, F]), of one pass."""
        features = self.features(img, label)
        logits = widen(self.logits(features, label))
        return (logits, features) if with_features else logits


class ProjectionDiscriminator(Discriminator):
    """Closes with a linear layer plus, where labels are, their projection on the features.

    logit = head(features) + scale * <embed(label), features> (Miyato and Koyama 2018, eq. 4).
    """

    head: nn.Linear
    embed: nn.Embedding | None
    scale: float

    def close(self, head: nn.Linear, num_classes: int, *, scale: float = 1.0) -> None:
        """Takes the linear layer F -> 1 and draws an embedding as wide.

        scale: 1/sqrt(F) keeps the logits of features of unit variance at unit variance; the paper
        has 1, and a smaller embedding by its own initialisation.
        """
        self.head = head
        self.embed = nn.Embedding(num_classes, head.in_features) if num_classes else None
        self.scale = scale

    def logits(self, features: Tensor, label: Tensor | None = None) -> Tensor:
        """See `Discriminator`."""
        logits: Tensor = self.head(features).squeeze(1)
        if self.embed is not None:
            projection = (self.embed(label) * features).sum(1)
            logits = logits + (projection if self.scale == 1 else projection * self.scale)
        return logits


@runtime_checkable
class Growing(Protocol):
    """A network that changes while it is trained; fresh, it stands at its final form."""

    def set_progress(self, progress: float) -> None:
        """progress: share of the training that is done, in [0, 1]; no part of a checkpoint."""
        ...


@runtime_checkable
class Mapped(Protocol):
    """A generator of two parts, between which truncation and mixing act."""

    mapping: nn.Module
    """(z [N, z_dim], label [N] or None) to w [N, w_dim]."""
    synthesis: nn.Module
    """w [N, w_dim] to images."""


@runtime_checkable
class Encoding(Protocol):
    """A generator with an encoder beside it, which is exported too."""

    encoder: nn.Module
    """(img [N, C, H, W] in [-1, 1], label [N] or None) to (mu, logvar), each [N, z_dim]."""


def widen(x: Tensor) -> Tensor:
    """Float32 where autocast made it narrower; wider types stay."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@dataclass(frozen=True, kw_only=True)
class Family:
    """Base of the families: options in fields, both players by methods."""

    name: ClassVar[str]
    encodes: ClassVar[bool] = False
    """True where G is `Encoding`."""

    z_dim: int = 128
    """Width of the latent."""

    def __post_init__(self) -> None:
        """Refuses options that make no network."""
        self.require_at_least(1, "z_dim")

    def check(self, shape: ImageShape) -> None:
        """Raises ValueError where the family can't make this shape; it names what it can."""

    @property
    def grows_until(self) -> float:
        """Share of a training in which the players are `Growing`, in [0, 1); 0 if they aren't."""
        return 0.0

    def generator(self, shape: ImageShape) -> nn.Module:
        """A freshly initialised G."""
        raise NotImplementedError

    def discriminator(self, shape: ImageShape) -> Discriminator:
        """A freshly initialised D."""
        raise NotImplementedError

    def require_at_least(self, least: float, *options: str) -> None:
        """Raises ValueError for an option below `least`; for `__post_init__`."""
        for option in options:
            value = getattr(self, option)
            if not value >= least:
                raise ValueError(f"{option} is {value}, must be at least {least}")

    def require_one_of(self, option: str, *allowed: str) -> None:
        """Raises ValueError for any other value of the option; for `__post_init__`."""
        value = getattr(self, option)
        if value not in allowed:
            names = " and ".join(repr(name) for name in allowed)
            raise ValueError(f"{option} is {value!r}, allowed are {names}")

    def require_resolution(self, shape: ImageShape, allowed: tuple[int, ...]) -> None:
        """Raises ValueError for any other resolution; for `check`."""
        if shape.resolution not in allowed:
            raise ValueError(
                f"resolution is {shape.resolution}, the family {self.name!r} makes "
                f"{', '.join(map(str, allowed))}; set --data.resolution to one of them"
            )


POWERS_OF_TWO = (8, 16, 32, 64, 128, 256)
"""Resolutions that a network reaches from 4x4 by doubling."""


def doubling_widths(shape: ImageShape, channel_base: int, channel_max: int) -> list[int]:
    """Channels of the maps at 4, 8, ... pixels: channel_base / pixels, in 1 .. channel_max."""
    resolutions = [4 << i for i in range(shape.resolution.bit_length() - 2)]
    return [max(1, min(channel_base // resolution, channel_max)) for resolution in resolutions]


FAMILIES: dict[str, type[Family]] = {}

F = TypeVar("F", bound=type[Family])


def family(name: str) -> Callable[[F], F]:
    """Enters a family into FAMILIES under a name."""

    def enter(cls: F) -> F:
        if name in FAMILIES:
            raise ValueError(f"the family {name!r} is registered already")
        cls.name = name
        FAMILIES[name] = cls
        return cls

    return enter
