"""R3GAN (Huang et al. 2024, arXiv:2501.05441): a residual pair without normalisation.

G and D are built of the same blocks, mirrored: x + conv(act(grouped 3x3(act(conv(x))))), the 1x1
convolutions around an inverted bottleneck. A branch starts at zero (fix-up, Zhang et al. 2019), its
other convolutions smaller the more blocks there are, so the depth needs no norm. Resampling is by
[1, 3, 3, 1] along each axis, with a 1x1 convolution where channels change. G starts from a learned
4x4 map, each channel scaled by a linear function of z; D ends in its mirror, a learned weighting of
4x4 maps. Labels enter G as an embedding beside z; with them D's logit is the product of an
embedding and a linear function of the features. No minibatch standard deviation: the
relativistic loss and the two zero-centred penalties are to do the work.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from models.networks.activations import leaky_relu
from models.networks.family import (
    UP_TO_1024,
    Discriminator,
    Family,
    ImageShape,
    ProjectionDiscriminator,
    ScaledEmbedding,
    doubling_widths,
    family,
    widen,
)
from models.networks.grouped import FullMapConv2d, GroupedConv2d
from models.networks.layers import (
    LRELU_GAIN,
    downsample,
    downsample_smooth,
    upsample_bilinear,
    upsample_smooth,
)


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Shape of a player's residual blocks."""

    num_blocks: int
    """At each resolution."""
    expansion: int
    """Width of the bottleneck, in block widths."""
    group_width: int
    """Channels of one group of the 3x3 convolution."""


class ResidualBlock(nn.Module):
    """[N, C, H, W] to the same; at first the identity."""

    def __init__(self, channels: int, blocks: Blocks, num_in_all: int) -> None:
        """num_in_all: residual blocks of the player, by which fix-up scales."""
        super().__init__()
        inner = channels * blocks.expansion
        # Fix-up: L^(-1/(2m - 2)) for branches of m = 3 convolutions, the last of them zero.
        gain = LRELU_GAIN * num_in_all**-0.25
        self.widen = _conv(channels, inner, 1, gain=gain, bias=True)
        self.spatial = _conv(
            inner, inner, 3, gain=gain, bias=True, groups=inner // blocks.group_width
        )
        self.narrow = _conv(inner, channels, 1, gain=0)

    def forward(self, x: Tensor) -> Tensor:
        """Adds the branch to the input."""
        y = leaky_relu(self.widen(x))
        y = leaky_relu(self.spatial(y))
        total: Tensor = x + self.narrow(y)
        return total


class Resample(nn.Module):
    """To twice or half the resolution, and to other channels where they change."""

    def __init__(self, channels_in: int, channels_out: int, *, up: bool, zeros: bool) -> None:
        """zeros: beyond the edge; else up by clamped bilinear weights, down by 2x2 means."""
        super().__init__()
        self.up = up
        self.zeros = zeros
        changes = channels_in != channels_out
        self.conv = _conv(channels_in, channels_out, 1, gain=1) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] to [N, out, 2H, 2W] or [N, out, H/2, W/2]."""
        # A 1x1 convolution and resampling commute; the smaller map is the cheaper one.
        if self.up:
            narrow: Tensor = self.conv(x)
            return upsample_smooth(narrow) if self.zeros else upsample_bilinear(narrow)
        resampled: Tensor = self.conv(downsample_smooth(x) if self.zeros else downsample(x))
        return resampled


class R3GANGenerator(nn.Module):
    """[N, z_dim] (+ labels [N]) to [N, C, H, W], about [-1, 1]."""

    def __init__(
        self,
        shape: ImageShape,
        z_dim: int,
        widths: list[int],
        blocks: Blocks,
        *,
        embed_dim: int,
        paper: bool,
    ) -> None:
        """widths: of the maps at 4, 8, ... pixels. paper: False for `R3GAN.revision` 1."""
        super().__init__()
        self.embed = nn.Embedding(shape.num_classes, embed_dim) if shape.num_classes else None
        if paper and self.embed is not None:
            nn.init.normal_(self.embed.weight, std=1 / math.sqrt(shape.num_classes))
        in_dim = z_dim + (embed_dim if shape.num_classes else 0)
        self.basis = nn.Parameter(torch.randn(widths[0], *shape.start))
        self.modulation = _linear(in_dim, widths[0], bias=not paper)
        self.layers = nn.Sequential()
        num_in_all = len(widths) * blocks.num_blocks
        for i, width in enumerate(widths):
            if i > 0:
                self.layers.append(Resample(widths[i - 1], width, up=True, zeros=paper))
            for _ in range(blocks.num_blocks):
                self.layers.append(ResidualBlock(width, blocks, num_in_all))
        self.to_img = _conv(widths[-1], shape.channels, 1, gain=1)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Scales the learned 4x4 map by a linear function of z and class, and runs the blocks."""
        if self.embed is not None:
            z = torch.cat([z, self.embed(label)], dim=1)
        x = self.basis * self.modulation(z)[:, :, None, None]
        return widen(self.to_img(self.layers(x)))


class R3GANDiscriminator(ProjectionDiscriminator):
    """[N, C, H, W] (+ labels [N]) to logits [N]."""

    def __init__(
        self, shape: ImageShape, widths: list[int], blocks: Blocks, *, paper: bool
    ) -> None:
        """widths: of the maps at 4, 8, ... pixels. paper: False for `R3GAN.revision` 1."""
        super().__init__()
        self.from_img = _conv(shape.channels, widths[-1], 1, gain=1)
        self.layers = nn.Sequential()
        num_in_all = len(widths) * blocks.num_blocks
        for i in reversed(range(len(widths))):
            for _ in range(blocks.num_blocks):
                self.layers.append(ResidualBlock(widths[i], blocks, num_in_all))
            if i > 0:
                self.layers.append(Resample(widths[i], widths[i - 1], up=False, zeros=paper))
        # One filter a channel, of the map's size: what is left of each map is a number.
        width = widths[0]
        self.basis = FullMapConv2d(width, shape.start)
        nn.init.normal_(self.basis.weight, std=1 / math.sqrt(shape.start_pixels))
        self.bilinear = paper
        if not paper:
            head = _linear(width, 1, bias=True)
            self.close(head, shape.num_classes, scale=1 / math.sqrt(width))
            return
        num_classes = shape.num_classes
        self.head = _linear(width, width if num_classes else 1, bias=False)
        self.embed = ScaledEmbedding(num_classes, width, 1.0) if num_classes else None
        if self.embed is not None:
            nn.init.normal_(self.embed.weight, std=1 / math.sqrt(width * num_classes))

    def features(self, img: Tensor, label: Tensor | None = None) -> Tensor:
        """Runs the blocks down to 4x4, and weights each map to one number: [N, widths[0]]."""
        features: Tensor = self.basis(self.layers(self.from_img(img)))
        return features.flatten(1)

    def logits(self, features: Tensor, label: Tensor | None = None) -> Tensor:
        """The product of a linear function of the features and, with labels, an embedding."""
        if not self.bilinear:
            return super().logits(features, label)
        found: Tensor = self.head(features)
        return found.squeeze(1) if self.embed is None else (found * self.embed(label)).sum(1)


@family("r3gan")
@dataclass(frozen=True, kw_only=True)
class R3GAN(Family):
    """Residual pair without normalisation for 8 to 1,024 pixels."""

    closed_branches: ClassVar[bool] = True
    before: ClassVar[Mapping[str, Any]] = {"revision": 1}

    z_dim: int = 64
    """Width of the latent."""
    channel_base: int = 24576
    """Channels of a map times its resolution, where channel_max allows so many."""
    channel_max: int = 768
    """Most channels of a map."""
    num_blocks: int = 2
    """Residual blocks at each resolution."""
    expansion: int = 2
    """Width of a block's bottleneck, in block widths."""
    group_width: int = 16
    """Channels of one group of the 3x3 convolutions; must divide every bottleneck's width."""
    embed_dim: int = 64
    """Width of G's label embedding; unused without labels."""
    revision: Literal[1, 2] = 2
    """2: the paper's networks. 1: those of earlier releases, for their weights: resampling by 2x2
    means and with clamped edges, biases in G's modulation and D's head, labels by projection."""

    def __post_init__(self) -> None:
        """Refuses options that make no network."""
        super().__post_init__()
        self.require_at_least(
            1, "channel_base", "channel_max", "num_blocks", "expansion", "group_width", "embed_dim"
        )

    def check(self, shape: ImageShape) -> None:
        """Raises ValueError where the resolution or a map's width doesn't fit."""
        self.require_resolution(shape, UP_TO_1024)
        for width in self._widths(shape):
            if width * self.expansion % self.group_width:
                raise ValueError(
                    f"group_width is {self.group_width}, allowed are divisors of "
                    f"{width * self.expansion}, the bottleneck of a map of {width} channels; set "
                    "--network.group-width, or --network.channel-base to a multiple of it"
                )

    def generator(self, shape: ImageShape) -> nn.Module:
        """Returns a G whose residual branches start at 0."""
        self.check(shape)
        return R3GANGenerator(
            shape,
            self.z_dim,
            self._widths(shape),
            self._blocks(),
            embed_dim=self.embed_dim,
            paper=self.revision == 2,
        )

    def discriminator(self, shape: ImageShape) -> Discriminator:
        """Returns a D whose residual branches start at 0."""
        self.check(shape)
        return R3GANDiscriminator(
            shape, self._widths(shape), self._blocks(), paper=self.revision == 2
        )

    def _widths(self, shape: ImageShape) -> list[int]:
        return doubling_widths(shape, self.channel_base, self.channel_max)

    def _blocks(self) -> Blocks:
        return Blocks(
            num_blocks=self.num_blocks, expansion=self.expansion, group_width=self.group_width
        )


def _conv(
    channels_in: int,
    channels_out: int,
    kernel: int,
    *,
    gain: float,
    bias: bool = False,
    groups: int = 1,
) -> nn.Conv2d:
    """A convolution that keeps the resolution; weights N(0, gain^2 / fan-in), biases zero."""
    kind = nn.Conv2d if groups == 1 else GroupedConv2d
    conv = kind(channels_in, channels_out, kernel, padding=kernel // 2, groups=groups, bias=bias)
    nn.init.normal_(conv.weight, std=gain / math.sqrt(channels_in // groups * kernel**2))
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def _linear(num_in: int, num_out: int, *, bias: bool) -> nn.Linear:
    """Weights N(0, 1 / fan-in), biases zero."""
    linear = nn.Linear(num_in, num_out, bias=bias)
    nn.init.normal_(linear.weight, std=1 / math.sqrt(num_in))
    if bias:
        nn.init.zeros_(linear.bias)
    return linear
