"""The residual pair of SN-GAN (Miyato et al. 2018) and WGAN-GP (Gulrajani et al. 2017).

G: a linear map to 4x4, then blocks that double: batch norm, ReLU, nearest, 3x3 convolution, twice,
beside a 1x1 shortcut. D: blocks that halve by 2x2 means, then blocks that don't, ReLU, pooling over
the pixels, a linear head. Labels enter G by conditional batch norm or as an embedding beside z, and
D by projection (Miyato and Koyama 2018). Spectral normalisation is no part of the network.

At 32 pixels and below every map has the same channels and D stops at 8x8, as in both papers'
CIFAR-10 networks; above, channels double as maps halve, down to 4x4, as in their larger ones.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Literal

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
        """[N, C, H, W] to the same."""
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
        """The sum of the branch and the shortcut."""
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
        self.stem = nn.Linear(z_dim + (embed_dim if concat else 0), widths[0] * 16)
        nn.init.xavier_uniform_(self.stem.weight)
        num_classes = 0 if concat else shape.num_classes
        self.blocks = nn.ModuleList(
            UpBlock(wide, narrow, num_classes) for wide, narrow in itertools.pairwise(widths)
        )
        self.norm = nn.BatchNorm2d(widths[-1])
        self.to_img = _conv(widths[-1], shape.channels, 3, gain=1)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """See `models.networks`."""
        if self.embed is not None:
            z = torch.cat([z, self.embed(label)], dim=1)
        x = self.stem(z).unflatten(1, (-1, 4, 4))
        for block in self.blocks:
            x = block(x, label)
        return widen(torch.tanh(self.to_img(relu(self.norm(x)))))


class DownBlock(nn.Module):
    """[N, in, H, W] to [N, out, H, W], or to half of it."""

    def __init__(
        self, channels_in: int, channels_out: int, *, halve: bool, first: bool, layer_norm: bool
    ) -> None:
        """first: sees the image, so there is no norm and no ReLU before its first convolution."""
        super().__init__()
        self.halve, self.first = halve, first
        layer_norm_0 = layer_norm and not first
        self.norm_0 = nn.GroupNorm(1, channels_in) if layer_norm_0 else nn.Identity()
        self.conv_0 = _conv(channels_in, channels_out, 3)
        self.norm_1 = nn.GroupNorm(1, channels_out) if layer_norm else nn.Identity()
        self.conv_1 = _conv(channels_out, channels_out, 3)
        learned = halve or channels_in != channels_out
        self.shortcut = _conv(channels_in, channels_out, 1) if learned else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """The sum of the branch and the shortcut."""
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
        pool: Literal["sum", "mean"],
    ) -> None:
        """widths: of the blocks that halve, in order; num_plain: blocks after them."""
        super().__init__()
        self.pool = pool
        channels = [shape.channels, *widths, *[widths[-1]] * num_plain]
        self.blocks = nn.Sequential(
            *(
                DownBlock(*pair, halve=i < len(widths), first=i == 0, layer_norm=layer_norm)
                for i, pair in enumerate(itertools.pairwise(channels))
            )
        )
        head = nn.Linear(widths[-1], 1)
        nn.init.xavier_uniform_(head.weight)
        self.close(head, shape.num_classes)
        if self.embed is not None:
            nn.init.xavier_uniform_(self.embed.weight)

    def features(self, img: Tensor, label: Tensor | None = None) -> Tensor:
        """See `Discriminator`."""
        pixels: Tensor = relu(self.blocks(img)).flatten(2)
        return pixels.sum(2) if self.pool == "sum" else pixels.mean(2)


@family("resnet")
@dataclass(frozen=True, kw_only=True)
class ResNet(Family):
    """Residual pair for 8 to 256 pixels."""

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
    d_norm: Literal["none", "layer"] = "none"
    """Normalisation in D. Gulrajani et al. have layer at 64 pixels; Miyato et al. none."""
    d_pool: Literal["sum", "mean"] = "sum"
    """Pooling before D's head: sum in Miyato et al., mean in Gulrajani et al."""

    def __post_init__(self) -> None:
        """Refuses options that make no network."""
        super().__post_init__()
        self.require_at_least(1, "ngf", "ndf", "embed_dim")
        self.require_one_of("g_label", "norm", "concat")
        self.require_one_of("d_norm", "none", "layer")
        self.require_one_of("d_pool", "sum", "mean")

    def check(self, shape: ImageShape) -> None:
        """Raises ValueError where the resolution is not in POWERS_OF_TWO."""
        self.require_resolution(shape, POWERS_OF_TWO)

    def generator(self, shape: ImageShape) -> nn.Module:
        """A freshly initialised G."""
        self.check(shape)
        num_maps = shape.resolution.bit_length() - 2  # at 4, 8, ... the resolution
        widths = [4 * self.ngf] * num_maps
        if shape.resolution > _SMALL:
            # The widest twice: at 128 pixels Miyato et al. have 1024, 1024, 512 ... 64.
            multiples = [min(2**i, 2 ** (num_maps - 2), _MAX_MULTIPLE) for i in range(num_maps)]
            widths = [self.ngf * multiple for multiple in reversed(multiples)]
        embed_dim = self.embed_dim if self.g_label == "concat" else 0
        return ResNetGenerator(shape, self.z_dim, widths, embed_dim=embed_dim)

    def discriminator(self, shape: ImageShape) -> Discriminator:
        """A freshly initialised D."""
        self.check(shape)
        if shape.resolution > _SMALL:
            num_halving, num_plain = shape.resolution.bit_length() - 3, 1
            widths = [self.ndf * min(2**i, _MAX_MULTIPLE) for i in range(num_halving)]
        else:
            widths = [2 * self.ndf] * max(shape.resolution.bit_length() - 4, 1)
            num_plain = 2
        return ResNetDiscriminator(
            shape, widths, num_plain, layer_norm=self.d_norm == "layer", pool=self.d_pool
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
