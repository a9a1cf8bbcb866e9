"""A style-based pair after StyleGAN2 (Karras et al. 2020, arXiv:1912.04958).

A mapping network turns z into w; w scales the channels of every convolution of the synthesis
network, whose weights are then brought back to unit length (demodulation). Noise of learned
strength at every pixel, an image that is summed up over the resolutions (skip connections), style
mixing in training. D is residual, with a minibatch standard deviation.

(De)modulation acts on what goes into and comes out of an ordinary convolution, which is the same
sum as scaling its weights, row by row: so the graph has no weights that depend on the batch, and
exports in standard operators. Upsampling is bilinear, downsampling by the filter [1, 3, 3, 1].
Labels enter the mapping network as an embedding beside z and D by projection.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

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
from models.networks.layers import (
    SQRT_2,
    EqualizedConv2d,
    EqualizedLinear,
    MinibatchStd,
    PixelNorm,
    upsample_bilinear,
)
from models.networks.rows import per_row

_MAPPING_LR = 0.01  # of the paper: the mapping network moves a hundred times slower


class Mapping(nn.Module):
    """[N, z_dim] (+ labels [N]) to w [N, w_dim]."""

    def __init__(self, shape: ImageShape, z_dim: int, w_dim: int, num_layers: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(shape.num_classes, w_dim) if shape.num_classes else None
        self.norm = PixelNorm()
        num_in = z_dim + (w_dim if shape.num_classes else 0)
        self.layers = nn.ModuleList(
            EqualizedLinear(num_in if i == 0 else w_dim, w_dim, lr_multiplier=_MAPPING_LR)
            for i in range(num_layers)
        )

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Latent and label each of unit mean square, then perceptrons."""
        x: Tensor = self.norm(z)
        if self.embed is not None:
            x = torch.cat([x, self.norm(self.embed(label))], dim=1)
        for layer in self.layers:
            x = leaky_relu(layer(x))
        return x


class ModulatedConv2d(nn.Module):
    """A convolution whose weights a style scales by input channel, and normalises by output."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, w_dim: int, *, demodulate: bool
    ) -> None:
        super().__init__()
        self.style = EqualizedLinear(w_dim, channels_in, gain=1, bias_init=1)
        self.weight = nn.Parameter(torch.randn(channels_out, channels_in, kernel, kernel))
        self.scale = 1 / math.sqrt(channels_in * kernel**2)
        self.demodulate = demodulate

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """[N, in, H, W] and w [N, w_dim] to [N, out, H, W]."""
        style = widen(self.style(w))
        weight = self.weight * self.scale
        y = functional.conv2d(
            x * style[:, :, None, None].to(x.dtype), weight, padding=weight.shape[2] // 2
        )
        if not self.demodulate:
            return y
        # sum over (in, kernel) of (weight * style)^2, for each row and output channel.
        square = style.square() @ weight.square().sum((2, 3)).T
        return y * widen(square + 1e-8).rsqrt()[:, :, None, None].to(y.dtype)


class StyledLayer(nn.Module):
    """Modulated convolution, noise, bias, leaky ReLU."""

    noise: Tensor

    def __init__(self, channels_in: int, channels_out: int, resolution: int, w_dim: int) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(channels_in, channels_out, 3, w_dim, demodulate=True)
        self.bias = nn.Parameter(torch.zeros(channels_out))
        self.strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise", torch.randn(1, 1, resolution, resolution))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Noise is drawn for each row in training; in evaluation it is the buffer's."""
        y = self.conv(x, w)
        noise = self.noise
        if self.training:
            size, dtype, place = noise.shape[1:], noise.dtype, noise.device
            noise = per_row(lambda num: torch.randn(num, *size, dtype=dtype, device=place), len(y))
        y = y + (noise * self.strength).to(y.dtype) + self.bias[:, None, None].to(y.dtype)
        return leaky_relu(y) * SQRT_2


class Synthesis(nn.Module):
    """Styles to [N, C, H, W], about [-1, 1]."""

    def __init__(self, shape: ImageShape, w_dim: int, widths: list[int]) -> None:
        """widths: of the maps at 4, 8, ... pixels."""
        super().__init__()
        self.start = nn.Parameter(torch.randn(widths[0], 4, 4))
        self.first = StyledLayer(widths[0], widths[0], 4, w_dim)
        self.layers = nn.ModuleList()
        for i in range(1, len(widths)):
            self.layers.append(StyledLayer(widths[i - 1], widths[i], 4 << i, w_dim))
            self.layers.append(StyledLayer(widths[i], widths[i], 4 << i, w_dim))
        self.to_img = nn.ModuleList(
            ModulatedConv2d(width, shape.channels, 1, w_dim, demodulate=False) for width in widths
        )
        self.bias = nn.Parameter(torch.zeros(shape.channels))
        self.num_styles = 2 * len(widths)

    def forward(self, w: Tensor) -> Tensor:
        """W [N, w_dim], or one for each style, [N, num_styles, w_dim]."""
        styles = w[:, None].expand(-1, self.num_styles, -1) if w.ndim == 2 else w
        x = self.start.expand(styles.shape[0], -1, -1, -1)
        x = self.first(x, styles[:, 0])
        img = self.to_img[0](x, styles[:, 1])
        for i in range(1, len(self.to_img)):
            x = self.layers[2 * i - 2](upsample_bilinear(x), styles[:, 2 * i - 1])
            x = self.layers[2 * i - 1](x, styles[:, 2 * i])
            img = upsample_bilinear(img) + self.to_img[i](x, styles[:, 2 * i + 1])
        return widen(img + self.bias[:, None, None].to(img.dtype))


class StyleGenerator(nn.Module):
    """[N, z_dim] (+ labels [N]) to [N, C, H, W], about [-1, 1]. Implements `Mapped`."""

    def __init__(self, mapping: Mapping, synthesis: Synthesis, *, mixing: float) -> None:
        """mixing: probability of a second w in training, row by row."""
        super().__init__()
        self.mapping = mapping
        self.synthesis = synthesis
        self.mixing = mixing

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """See `models.networks`."""
        w = self.mapping(z, label)
        if self.training and self.mixing > 0:
            size, dtype, place = z.shape[1:], z.dtype, z.device
            other = per_row(lambda num: torch.randn(num, *size, dtype=dtype, device=place), len(z))
            w = self._mix(w, self.mapping(other, label))
        img: Tensor = self.synthesis(w)
        return img

    def _mix(self, w: Tensor, other: Tensor) -> Tensor:
        """[N, num_styles, w_dim]: from a random style on, the other w, in a share of the rows."""
        num_styles, place = self.synthesis.num_styles, w.device
        crossover = per_row(
            lambda num: torch.randint(1, num_styles, (num, 1), device=place), len(w)
        )
        mixed = per_row(lambda num: torch.rand(num, 1, device=place), len(w)) < self.mixing
        late = torch.arange(num_styles, device=w.device) >= crossover
        return torch.where((late & mixed)[:, :, None], other[:, None], w[:, None])


class StyleBlock(nn.Module):
    """[N, in, H, W] to [N, out, H/2, W/2], of the variance that came in."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv_0 = EqualizedConv2d(channels_in, channels_in, 3)
        self.conv_1 = EqualizedConv2d(channels_in, channels_out, 3)
        self.shortcut = EqualizedConv2d(channels_in, channels_out, 1, gain=1)

    def forward(self, x: Tensor) -> Tensor:
        """The sum of the branch and the shortcut."""
        y = smooth_downsample(leaky_relu(self.conv_0(x)))
        total: Tensor = leaky_relu(self.conv_1(y)) + self.shortcut(smooth_downsample(x))
        return total / SQRT_2


class StyleDiscriminator(ProjectionDiscriminator):
    """[N, C, H, W] (+ labels [N]) to logits [N]."""

    def __init__(self, shape: ImageShape, widths: list[int], *, mbstd_group: int) -> None:
        """widths: of the maps at 4, 8, ... pixels."""
        super().__init__()
        self.from_img = EqualizedConv2d(shape.channels, widths[-1], 1)
        self.blocks = nn.Sequential(
            *(StyleBlock(widths[i], widths[i - 1]) for i in reversed(range(1, len(widths))))
        )
        self.mbstd = MinibatchStd(mbstd_group)
        self.last = EqualizedConv2d(widths[0] + 1, widths[0], 3)
        self.dense = EqualizedLinear(widths[0] * 16, widths[0])
        head = EqualizedLinear(widths[0], 1, gain=1)
        self.close(head, shape.num_classes, scale=1 / math.sqrt(widths[0]))

    def features(self, img: Tensor, label: Tensor | None = None) -> Tensor:
        """See `Discriminator`."""
        x = self.blocks(leaky_relu(self.from_img(img)))
        x = leaky_relu(self.last(self.mbstd(x)))
        return leaky_relu(self.dense(x.flatten(1)))


def smooth_downsample(x: Tensor) -> Tensor:
    """[N, C, H, W] to [N, C, H/2, W/2] by [1, 3, 3, 1] along each axis; zeros beyond the edge."""
    line = torch.tensor([1, 3, 3, 1], dtype=x.dtype, device=x.device) / 8
    kernel = torch.outer(line, line).expand(x.shape[1], 1, 4, 4)
    return functional.conv2d(x, kernel, stride=2, padding=1, groups=x.shape[1])


@family("style")
@dataclass(frozen=True, kw_only=True)
class Style(Family):
    """Style-based pair for 8 to 256 pixels."""

    z_dim: int = 512
    """Width of the latent."""
    w_dim: int = 512
    """Width of w."""
    mapping_layers: int = 8
    """Perceptron layers from z to w."""
    channel_base: int = 16384
    """Channels of a map times its resolution, where channel_max allows so many."""
    channel_max: int = 512
    """Most channels of a map."""
    mixing: float = 0.9
    """Probability that an image is made of two w in training, in [0, 1]."""
    mbstd_group: int = 4
    """Images whose standard deviation D sees; at least 2."""

    def __post_init__(self) -> None:
        """Refuses options that make no network."""
        super().__post_init__()
        self.require_at_least(1, "w_dim", "mapping_layers", "channel_base", "channel_max")
        self.require_at_least(2, "mbstd_group")
        if not 0 <= self.mixing <= 1:
            raise ValueError(f"mixing is {self.mixing}, must lie in [0, 1]")

    def check(self, shape: ImageShape) -> None:
        """Raises ValueError where the resolution is not in POWERS_OF_TWO."""
        self.require_resolution(shape, POWERS_OF_TWO)

    def generator(self, shape: ImageShape) -> nn.Module:
        """A freshly initialised G."""
        self.check(shape)
        widths = doubling_widths(shape, self.channel_base, self.channel_max)
        return StyleGenerator(
            Mapping(shape, self.z_dim, self.w_dim, self.mapping_layers),
            Synthesis(shape, self.w_dim, widths),
            mixing=self.mixing,
        )

    def discriminator(self, shape: ImageShape) -> Discriminator:
        """A freshly initialised D."""
        self.check(shape)
        widths = doubling_widths(shape, self.channel_base, self.channel_max)
        return StyleDiscriminator(shape, widths, mbstd_group=self.mbstd_group)
