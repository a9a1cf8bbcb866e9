"""The residual pair of SN-GAN (Miyato et al. 2018) and WGAN-GP (Gulrajani et al. 2017).

G: a linear map to 4x4, then blocks that double: batch norm, ReLU, nearest, 3x3 convolution, twice,
beside a 1x1 shortcut. D: blocks that halve by 2x2 means, then blocks that don't, ReLU, pooling over
the pixels, a linear head. Labels enter G by conditional batch norm or as an embedding beside z, and
D by projection (Miyato and Koyama 2018). Spectral normalisation is no part of the network.

At 32 pixels and below every map has the same channels and D stops at 8x8, as in both papers'
CIFAR-10 networks. Above, channels double as maps halve, and `form` says after which paper: SN-GAN's
G has up to 16 times the channels, and its D ends in five blocks that halve (64 pixels) or in those
and one that doesn't (128); WGAN-GP's has up to 8 times, begins D with a convolution of its own, and
its head sees every pixel of the last 4x4 map.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from models.networks.activations import relu
from models.networks.family import (
    POWERS_OF_TWO,
    Discriminator,
    Family,
    ImageShape,
    ProjectionDiscriminator,
    family,
    widen,
)
from models.networks.layers import ConditionalBatchNorm2d, downsample, upsample_nearest

_MAX_MULTIPLE = 16  # of Miyato et al.: 64 channels at 128x128, 1024 at 4x4
_SMALL = 32  # pixels, up to which every map has the same channels


class _Norm(nn.Module):
    """Batch norm, of the class where num_classes is not 0."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.plain = None if num_classes else nn.BatchNorm2d(channels)
        self.of_class = ConditionalBatchNorm2d(channels, num_classes) if num_classes else None

    def forward(self, x: Tensor, label: Tensor | None) -> Tensor:
        """Normalises [N, C, H, W]; the label is used where there are classes."""
        normalised: Tensor
        if self.plain is not None:
            normalised = self.plain(x)
        else:
            assert self.of_class is not None
            normalised = self.of_class(x, label)
        return normalised


class UpBlock(nn.Module):
    """[N, in, H, W] to [N, out, 2H, 2W]."""

    def __init__(self, channels_in: int, channels_out: int, num_classes: int) -> None:
        """num_classes: 0 for plain batch norm."""
        super().__init__()
        self.norm_0 = _Norm(channels_in, num_classes)
        self.conv_0 = _conv(channels_in, channels_out, 3)
        self.norm_1 = _Norm(channels_out, num_classes)
        self.conv_1 = _conv(channels_out, channels_out, 3)
        self.shortcut = _conv(channels_in, channels_out, 1)

    def forward(self, x: Tensor, label: Tensor | None) -> Tensor:
        """Adds the branch to the shortcut."""
        y = self.conv_0(upsample_nearest(relu(self.norm_0(x, label))))
        y = self.conv_1(relu(self.norm_1(y, label)))
        # A 1x1 convolution and nearest upsampling commute; this order is a quarter of the work.
        total: Tensor = y + upsample_nearest(self.shortcut(x))
        return total


class ResNetGenerator(nn.Module):
    """[N, z_dim] (+ labels [N]) to [N, C, H, W] in [-1, 1]."""

    def __init__(
        self,
        shape: ImageShape,
        z_dim: int,
        widths: list[int],
        *,
        embed_dim: int,
    ) -> None:
        """widths: of the maps at 4, 8, ... pixels. embed_dim: 0 for conditional batch norm."""
        super().__init__()
        concat = bool(shape.num_classes and embed_dim)
        self.embed = nn.Embedding(shape.num_classes, embed_dim) if concat else None
        self.start = shape.start
        in_dim = z_dim + (embed_dim if concat else 0)
        self.stem = nn.Linear(in_dim, widths[0] * shape.start_pixels)
        nn.init.xavier_uniform_(self.stem.weight)
        num_classes = 0 if concat else shape.num_classes
        self.blocks = nn.ModuleList(
            UpBlock(wide, narrow, num_classes) for wide, narrow in itertools.pairwise(widths)
        )
        self.norm = nn.BatchNorm2d(widths[-1])
        self.to_img = _conv(widths[-1], shape.channels, 3, gain=1)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Maps latents to images; the class enters every norm, or as an embedding beside z."""
        if self.embed is not None:
            z = torch.cat([z, self.embed(label)], dim=1)
        x = self.stem(z).unflatten(1, (-1, *self.start))
        for block in self.blocks:
            x = block(x, label)
        return widen(torch.tanh(self.to_img(relu(self.norm(x)))))


class DownBlock(nn.Module):
    """[N, in, H, W] to [N, out, H, W], or to half of it."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        halve: bool,
        first: bool,
        layer_norm: bool,
        wide: bool = True,
    ) -> None:
        """Makes a block.

        first: sees the image, so there is no norm and no ReLU before its first convolution. wide:
        the first convolution leads to all channels already; else it keeps those that come in.
        """
        super().__init__()
        self.halve, self.first = halve, first
        inner = channels_out if wide or first else channels_in
        layer_norm_0 = layer_norm and not first
        self.norm_0 = nn.GroupNorm(1, channels_in) if layer_norm_0 else nn.Identity()
        self.conv_0 = _conv(channels_in, inner, 3)
        self.norm_1 = nn.GroupNorm(1, inner) if layer_norm else nn.Identity()
        self.conv_1 = _conv(inner, channels_out, 3)
        learned = halve or channels_in != channels_out
        self.shortcut = _conv(channels_in, channels_out, 1) if learned else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Adds the branch to the shortcut."""
        y = x if self.first else relu(self.norm_0(x))
        y = self.conv_1(relu(self.norm_1(self.conv_0(y))))
        if self.halve:
            # A 1x1 convolution and the mean commute; this order is a quarter of the work.
            x, y = downsample(x), downsample(y)
        total: Tensor = y + self.shortcut(x)
        return total


class ResNetDiscriminator(ProjectionDiscriminator):
    """[N, C, H, W] (+ labels [N]) to logits [N]."""

    def __init__(
        self,
        shape: ImageShape,
        widths: list[int],
        num_plain: int,
        *,
        layer_norm: bool,
        pool: Literal["sum", "mean", "none"],
        wide: bool,
        stem: int = 0,
    ) -> None:
        """Makes the blocks.

        widths: of the blocks that halve, in order. num_plain: blocks after them. pool: none gives
        the head all pixels of a 4x4 map. wide: see `DownBlock`. stem: channels of a convolution
        before the blocks; 0 for none, where the first block sees the image.
        """
        super().__init__()
        self.pool = pool
        self.from_img = _conv(shape.channels, stem, 3, gain=1) if stem else nn.Identity()
        channels = [stem or shape.channels, *widths, *[widths[-1]] * num_plain]
        self.blocks = nn.Sequential(
            *(
                DownBlock(
                    *pair,
                    halve=i < len(widths),
                    first=i == 0 and not stem,
                    layer_norm=layer_norm,
                    wide=wide,
                )
                for i, pair in enumerate(itertools.pairwise(channels))
            )
        )
        head = nn.Linear(widths[-1] * (shape.start_pixels if pool == "none" else 1), 1)
        nn.init.xavier_uniform_(head.weight)
        self.close(head, shape.num_classes)
        if self.embed is not None:
            nn.init.xavier_uniform_(self.embed.weight)

    def features(self, img: Tensor, label: Tensor | None = None) -> Tensor:
        """Pools the last map over its pixels: [N, widths[-1]], 16 times as many without pooling."""
        x: Tensor = self.blocks(self.from_img(img))
        if self.pool == "none":
            return x.flatten(1)  # no ReLU before WGAN-GP's head
        pixels = relu(x).flatten(2)
        return pixels.sum(2) if self.pool == "sum" else pixels.mean(2)


@family("resnet")
@dataclass(frozen=True, kw_only=True)
class ResNet(Family):
    """Residual pair for 8 to 256 pixels."""

    before: ClassVar[Mapping[str, Any]] = {"form": "wide"}

    z_dim: int = 128
    """Width of the latent."""
    ngf: int = 64
    """Channels of G's map at the full resolution; they double as maps halve, up to 16 times. At 32
    pixels and below, every map has four times as many."""
    ndf: int = 64
    """Channels of D's first block; they double as maps halve, up to 16 times. At 32 pixels and
    below, every map has twice as many."""
    g_label: Literal["norm", "concat"] = "norm"
    """How labels enter G: by conditional batch norm, or as an embedding beside z."""
    embed_dim: int = 128
    """Width of G's label embedding; unused without labels or with g_label norm."""
    form: Literal["sngan", "wgan-gp", "wide"] = "sngan"
    """Whose networks above 32 pixels: Miyato et al.'s, Gulrajani et al.'s, or the pair of earlier
    releases, for their weights, whose D has all channels from each block's first convolution on."""
    d_norm: Literal["none", "layer"] = "none"
    """Normalisation in D. Gulrajani et al. have layer at 64 pixels; Miyato et al. none."""
    d_pool: Literal["sum", "mean"] = "sum"
    """Pooling before D's head: sum in Miyato et al., mean in Gulrajani et al. at 32 pixels; form
    wgan-gp has none above."""

    def __post_init__(self) -> None:
        """Refuses options that make no network."""
        super().__post_init__()
        self.require_at_least(1, "ngf", "ndf", "embed_dim")
        self.require_one_of("g_label", "norm", "concat")
        self.require_one_of("form", "sngan", "wgan-gp", "wide")
        self.require_one_of("d_norm", "none", "layer")
        self.require_one_of("d_pool", "sum", "mean")

    def check(self, shape: ImageShape) -> None:
        """Raises ValueError where the resolution is not in POWERS_OF_TWO."""
        self.require_resolution(shape, POWERS_OF_TWO)

    def generator(self, shape: ImageShape) -> nn.Module:
        """Returns a G with Glorot's weights."""
        self.check(shape)
        num_maps = shape.num_doublings + 1  # at 4, 8, ... the resolution
        widths = [4 * self.ngf] * num_maps
        if min(shape.height, shape.width) > _SMALL:
            # At 128 pixels Miyato et al. have 1024, 1024, 512 ... 64; at 64 Gulrajani et al. have
            # 512, 512, 256 ... 64.
            most = {"sngan": _MAX_MULTIPLE, "wgan-gp": 8, "wide": 2 ** (num_maps - 2)}[self.form]
            multiples = [min(2**i, most, _MAX_MULTIPLE) for i in range(num_maps)]
            widths = [self.ngf * multiple for multiple in reversed(multiples)]
        embed_dim = self.embed_dim if self.g_label == "concat" else 0
        return ResNetGenerator(shape, self.z_dim, widths, embed_dim=embed_dim)

    def discriminator(self, shape: ImageShape) -> Discriminator:
        """Returns a D with Glorot's weights."""
        self.check(shape)
        layer_norm = self.d_norm == "layer"
        num_halving = shape.num_doublings  # down to the smallest map
        if min(shape.height, shape.width) <= _SMALL:
            widths = [2 * self.ndf] * max(num_halving - 1, 1)
            return ResNetDiscriminator(
                shape, widths, 2, layer_norm=layer_norm, pool=self.d_pool, wide=True
            )
        if self.form == "wgan-gp":
            widths = [self.ndf * min(2**i, 8) for i in range(1, num_halving + 1)]
            return ResNetDiscriminator(
                *(shape, widths, 0),
                layer_norm=layer_norm,
                pool="none",
                wide=False,
                stem=self.ndf,
            )
        # Miyato et al. halve five times at 64 pixels, down to 2x2, and at 128, and go on at 128. A
        # smallest map of an odd side can't be halved.
        fifth = self.form == "sngan" and num_halving == 4 and shape.start == (4, 4)
        widths = [self.ndf * min(2**i, _MAX_MULTIPLE) for i in range(num_halving + fifth)]
        return ResNetDiscriminator(
            *(shape, widths, 0 if fifth else 1),
            layer_norm=layer_norm,
            pool=self.d_pool,
            wide=self.form == "wide",
        )


def _conv(
    channels_in: int, channels_out: int, kernel: int, *, gain: float | None = None
) -> nn.Conv2d:
    """A convolution that keeps the resolution; Glorot's bound, times sqrt 2 within the branches."""
    conv = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2)
    default = math.sqrt(2) if kernel > 1 else 1.0
    nn.init.xavier_uniform_(conv.weight, gain=default if gain is None else gain)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv
