"""The base of the families of networks, and the registry that they enter by decorator.

Players are pure in (parameters, buffers, inputs, torch's global generator): forward changes nothing
but batch norm's running statistics, so that an analysis may bind parameters of its own
(`torch.func.functional_call`). A layer that mixes the rows of a batch says `mixes_rows = True`;
one that draws for each row does so by `models.networks.row_rng.per_row`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class ImageShape:
    """The shape of the images that networks see and make, and the number of classes."""

    resolution: int | tuple[int, int]
    """Side of a square in pixels, or (height, width); equal ones become one number."""
    channels: int
    """1 (grey), 3 (RGB) or 4 (RGB and alpha), times `pack`."""
    num_classes: int = 0
    """0 for unconditional networks."""
    pack: int = 1
    """Images that D sees at once, one after the other in its channels (Lin et al. 2018)."""

    def __post_init__(self) -> None:
        """Refuses shapes that no family could make."""
        if self.channels % self.pack or self.channels // self.pack not in (1, 3, 4):
            allowed = "1 (grey), 3 (RGB) and 4 (RGB and alpha)"
            raise ValueError(f"channels is {self.channels}, allowed are {allowed}")
        if min(self.height, self.width) < 1:
            raise ValueError(f"resolution is {self.size_text}, must be at least 1")
        if self.height == self.width:
            object.__setattr__(self, "resolution", self.height)
        if self.num_classes < 0:
            raise ValueError(f"num_classes is {self.num_classes}, must be 0 or more")

    @property
    def height(self) -> int:
        """In pixels."""
        return self.resolution if isinstance(self.resolution, int) else self.resolution[0]

    @property
    def width(self) -> int:
        """In pixels."""
        return self.resolution if isinstance(self.resolution, int) else self.resolution[1]

    @property
    def size_text(self) -> str:
        """The size as --data.resolution takes it: 64 for a square, else WIDTHxHEIGHT."""
        return str(self.width) if self.width == self.height else f"{self.width}x{self.height}"

    def packed(self, num: int) -> "ImageShape":
        """The shape of so many images on top of each other: what a packed D sees."""
        return replace(self, channels=self.channels * num, pack=self.pack * num)

    @property
    def num_doublings(self) -> int:
        """How often the smallest map, whose shorter side is 4 pixels, is doubled to this shape."""
        return min(self.height, self.width).bit_length() - 3

    @property
    def start(self) -> tuple[int, int]:
        """Height and width of the smallest map: 4x4 for a square."""
        return self.height >> self.num_doublings, self.width >> self.num_doublings

    @property
    def start_pixels(self) -> int:
        """Pixels of the smallest map: 16 for a square."""
        return self.start[0] * self.start[1]


class ScaledEmbedding(nn.Embedding):
    """An embedding whose users multiply it by `scale`, as layers of equalised rate do theirs."""

    def __init__(self, num: int, dim: int, scale: float) -> None:
        super().__init__(num, dim)
        self.scale = scale


def scale_in_use(module: nn.Module) -> float:
    """Returns the factor by which a layer's weight is multiplied when it is used; mostly 1.

    Whoever bounds weights must bound what acts: the weight times this.
    """
    return float(getattr(module, "scale", 1.0))


class Discriminator(nn.Module):
    """Base of every D: images to features, features to logits."""

    def features(self, img: Tensor, label: Tensor | None = None) -> Tensor:
        """Maps images [N, C, H, W] (+ label [N]) to the last layer before the logit, [N, F]."""
        raise NotImplementedError

    def logits(self, features: Tensor, label: Tensor | None = None) -> Tensor:
        """Maps features [N, F] (+ label [N]) to logits [N]."""
        raise NotImplementedError

    def forward(
        self, img: Tensor, label: Tensor | None = None, *, with_features: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Returns logits [N]; with_features: (logits [N], features [N, F]), of one pass."""
        features = self.features(img, label)
        logits = widen(self.logits(features, label))  # losses are computed in float32
        return (logits, features) if with_features else logits


class ProjectionDiscriminator(Discriminator):
    """Closes with a linear layer plus, where labels are, their projection on the features.

    logit = head(features) + scale * <embed(label), features> (Miyato and Koyama 2018, eq. 4).
    """

    head: nn.Linear
    embed: ScaledEmbedding | None

    def close(self, head: nn.Linear, num_classes: int, *, scale: float = 1.0) -> None:
        """Takes the linear layer F -> 1 and draws an embedding as wide.

        scale: 1/sqrt(F) keeps the logits of features of unit variance at unit variance; the paper
        has 1, and a smaller embedding by its own initialisation.
        """
        self.head = head
        width = head.in_features
        self.embed = ScaledEmbedding(num_classes, width, scale) if num_classes else None

    def logits(self, features: Tensor, label: Tensor | None = None) -> Tensor:
        """Adds the projection on the class's embedding to the linear layer's output."""
        logits: Tensor = self.head(features).squeeze(1)
        if self.embed is not None:
            projection, scale = (self.embed(label) * features).sum(1), self.embed.scale
            logits = logits + (projection if scale == 1 else projection * scale)
        return logits


@runtime_checkable
class Growing(Protocol):
    """A network that changes while it is trained; fresh, it stands at its final form."""

    def set_progress(self, progress: float) -> None:
        """progress: share of the training that is done, in [0, 1]; no part of a checkpoint."""
        ...


@runtime_checkable
class Fading(Protocol):
    """A D that compares G's images with real ones as blurred as G's are at the moment."""

    def faded(self, img: Tensor) -> Tensor:
        """Real images [N, C, H, W] to the same, mixed with their coarser selves as G's are."""
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
    """Returns float32 where autocast made it narrower; wider types stay as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@dataclass(frozen=True, kw_only=True)
class Family:
    """Base of the families: options in fields, both players by methods."""

    name: ClassVar[str]
    encodes: ClassVar[bool] = False
    """True where G is `Encoding`."""
    maps: ClassVar[bool] = False
    """True where G is `Mapped`, and gives its styles with its images if asked `with_styles`."""
    before: ClassVar[Mapping[str, Any]] = {}
    """What options were before there were such options: files of then have these values."""
    initialises: ClassVar[bool] = True
    """True where the paper's own initialisation belongs to the network, so that no recipe's may
    replace it; False where weights are drawn for a normalisation that D may not have."""
    points: ClassVar[bool] = False
    """True where G makes points of the plane, and no images."""
    closed_branches: ClassVar[bool] = False
    """True where layers of D start at 0, so that their weights have no norm to divide by."""

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

    @property
    def batch_norm_in_D(self) -> bool:
        """True where D has batch norm, so that each logit depends on the whole batch."""
        return False

    def generator(self, shape: ImageShape) -> nn.Module:
        """Returns a G with new weights, drawn from torch's global generator."""
        raise NotImplementedError

    def discriminator(self, shape: ImageShape) -> Discriminator:
        """Returns a D with new weights, drawn from torch's global generator."""
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

    def require_no_labels(self, shape: ImageShape) -> None:
        """Raises ValueError for classes; for `check` of unconditional pairs."""
        if shape.num_classes:
            raise ValueError(
                f"the family {self.name!r} takes no labels, the data has {shape.num_classes} "
                "classes; choose the family 'dcgan', or train unconditionally"
            )

    def require_resolution(self, shape: ImageShape, allowed: tuple[int, ...]) -> None:
        """Raises ValueError for a shape that isn't reached by doubling; for `check`.

        allowed: sides of squares, powers of two. A rectangle's shorter side is one of them; the
        longer one is a multiple of a quarter of it, four times as long at most.
        """
        short, long = sorted((shape.height, shape.width))
        if short == long and short in allowed:
            return
        if short in allowed and long <= min(MAX_ASPECT * short, allowed[-1]):
            if long % (short // 4) == 0:
                return
            nearest = max(short, round(long / (short // 4)) * (short // 4))
            near = (short, nearest) if shape.height > shape.width else (nearest, short)
            remedy = f"{near[0]}x{near[1]} is the nearest"
        else:
            remedy = "set --data.resolution to one of them"
        rectangles = ""
        if short != long:
            rectangles = (
                ", and rectangles (WIDTHxHEIGHT) whose shorter side is one of these and whose "
                f"longer side is a multiple of a quarter of it, up to {MAX_ASPECT} times as long "
                f"and up to {allowed[-1]}"
            )
        raise ValueError(
            f"resolution is {shape.size_text}, the family {self.name!r} makes "
            f"{', '.join(map(str, allowed))}{rectangles}; {remedy}"
        )


POWERS_OF_TWO = (8, 16, 32, 64, 128, 256)
"""Resolutions that a network reaches from 4x4 by doubling."""

UP_TO_1024 = (*POWERS_OF_TWO, 512, 1024)
"""The same for families whose papers go so far."""

MAX_ASPECT = 4
"""How many times as long as the shorter side the longer one may be."""


def doubling_widths(shape: ImageShape, channel_base: int, channel_max: int) -> list[int]:
    """Channels of the maps whose shorter side has 4, 8, ... pixels.

    They are channel_base / pixels, in 1 .. channel_max.
    """
    resolutions = [4 << i for i in range(shape.num_doublings + 1)]
    return [max(1, min(channel_base // resolution, channel_max)) for resolution in resolutions]


FAMILIES: dict[str, type[Family]] = {}

F = TypeVar("F", bound=type[Family])


def family(name: str) -> Callable[[F], F]:
    """Registers the decorated class in FAMILIES under a name."""

    def enter(cls: F) -> F:
        if name in FAMILIES:
            raise ValueError(f"the family {name!r} is registered already")
        cls.name = name
        FAMILIES[name] = cls
        return cls

    return enter
