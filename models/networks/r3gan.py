"""R3GAN (Huang et al. 2024, arXiv:2501.05441): a residual pair without normalisation.

G and D are built of the same blocks, mirrored: x + conv(act(grouped 3x3(act(conv(x))))), the 1x1
convolutions around an inverted bottleneck. A branch starts at zero (fix-up, Zhang et al. 2019), its
other convolutions smaller the more blocks there are, so the depth needs no norm. Resampling is
bilinear, with a 1x1 convolution where channels change. G starts from a learned 4x4 map, each
channel scaled by a linear function of z; D ends in its mirror, a learned weighting of 4x4 maps.
Labels enter G as an embedding beside z and D by projection. No minibatch standard deviation: the
relativistic loss and the two zero-centred penalties are to do the work.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.networks.activations import leaky_relu
from models.networks.family import (
    POWERS_OF_TWO,
    Discriminator,
    Family,
    ImageShape,
    ProjectionDiscriminator,
    doubling_widths,
    family,
    widen,
)
from models.networks.layers import LRELU_GAIN, downsample, upsample_bilinear


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
        """The sum of the input and the branch."""
        y = leaky_relu(self.widen(x))
        y = leaky_relu(self.spatial(y))
        total: Tensor = x + self.narrow(y)
        return total


class Resample(nn.Module):
    """To twice or half the resolution, and to other channels where they change."""

    def __init__(self, channels_in: int, channels_out: int, *, up: bool) -> None:
        super().__init__()
        self.up = up
        changes = channels_in != channels_out
        self.conv = _conv(channels_in, channels_out, 1, gain=1) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] to [N, out, 2H, 2W] or [N, out, H/2, W/2]."""
        # A 1x1 convolution and resampling commute; the smaller map is the cheaper one.
        resampled: Tensor = upsample_bilinear(self.conv(x)) if self.up else self.conv(downsample(x))
        return resampled


class R3GANGenerator(nn.Module):
    """[N, z_dim] (+ labels [N]) to [N, C, H, W], about [-1, 1]."""

    def __init__(
        self, shape: ImageShape, z_dim: int, widths: list[int], blocks: Blocks, *, embed_dim: int
    ) -> None:
        """widths: of the maps at 4, 8, ... pixels."""
        super().__init__()
        self.embed = nn.Embedding(shape.num_classes, embed_dim) if shape.num_classes else None
        in_dim = z_dim + (embed_dim if shape.num_classes else 0)
        self.basis = nn.Parameter(torch.randn(widths[0], 4, 4))
        self.modulation = _linear(in_dim, widths[0])
        self.layers = nn.Sequential()
        num_in_all = len(widths) * blocks.num_blocks
        for i, width in enumerate(widths):
            if i > 0:
                self.layers.append(Resample(widths[i - 1], width, up=True))
            for _ in range(blocks.num_blocks):
                self.layers.append(ResidualBlock(width, blocks, num_in_all))
        self.to_img = _conv(widths[-1], shape.channels, 1, gain=1)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """See `models.networks`."""
        if self.embed is not None:
            z = torch.cat([z, self.embed(label)], dim=1)
        x = self.basis * self.modulation(z)[:, :, None, None]
        return widen(self.to_img(self.layers(x)))


class R3GANDiscriminator(ProjectionDiscriminator):
    """[N, C, H, W] (+ labels [N]) to logits [N]."""

    def __init__(self, shape: ImageShape, widths: list[int], blocks: Blocks) -> None:
        """widths: of the maps at 4, 8, ... pixels."""
        super().__init__()
        self.from_img = _conv(shape.channels, widths[-1], 1, gain=1)
        self.layers = nn.Sequential()
        num_in_all = len(widths) * blocks.num_blocks
        for i in reversed(range(len(widths))):
            for _ in range(blocks.num_blocks):
                self.layers.append(ResidualBlock(widths[i], blocks, num_in_all))
            if i > 0:
                self.layers.append(Resample(widths[i], widths[i - 1], up=False))
        # One 4x4 filter a channel, without padding: what is left of each map is a number.
        self.basis = nn.Conv2d(widths[0], widths[0], 4, groups=widths[0], bias=False)
        nn.init.normal_(self.basis.weight, std=1 / 4)
        self.close(_linear(widths[0], 1), shape.num_classes, scale=1 / math.sqrt(widths[0]))

    def features(self, img: Tensor, label: Tensor | None = None) -> Tensor:
        """See `Discriminator`."""
        features: Tensor = self.basis(self.layers(self.from_img(img)))
        return features.flatten(1)


@family("r3gan")
@dataclass(frozen=True, kw_only=True)
class R3GAN(Family):
    """Residual pair without normalisation for 8 to 256 pixels."""

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

    def __post_init__(self) -> None:
        """Refuses options that make no network."""
        super().__post_init__()
        self.require_at_least(
            1, "channel_base", "channel_max", "num_blocks", "expansion", "group_width", "embed_dim"
        )

    def check(self, shape: ImageShape) -> None:
        """Raises ValueError where the resolution or a map's width doesn't fit."""
        self.require_resolution(shape, POWERS_OF_TWO)
        for width in self._widths(shape):
            if width * self.expansion % self.group_width:
                raise ValueError(
                    f"group_width is {self.group_width}, allowed are divisors of "
                    f"{width * self.expansion}, the bottleneck of a map of {width} channels; set "
                    "--network.group-width, or --network.channel-base to a multiple of it"
                )

    def generator(self, shape: ImageShape) -> nn.Module:
        """A freshly initialised G."""
        self.check(shape)
        return R3GANGenerator(
            shape, self.z_dim, self._widths(shape), self._blocks(), embed_dim=self.embed_dim
        )

    def discriminator(self, shape: ImageShape) -> Discriminator:
        """A freshly initialised D."""
        self.check(shape)
        return R3GANDiscriminator(shape, self._widths(shape), self._blocks())

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
    conv = nn.Conv2d(
        channels_in, channels_out, kernel, padding=kernel // 2, groups=groups, bias=bias
    )
    nn.init.normal_(conv.weight, std=gain / math.sqrt(channels_in // groups * kernel**2))
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def _linear(num_in: int, num_out: int) -> nn.Linear:
    """Weights N(0, 1 / fan-in), biases zero."""
    linear = nn.Linear(num_in, num_out)
    nn.init.normal_(linear.weight, std=1 / math.sqrt(num_in))
    nn.init.zeros_(linear.bias)
    return linear
