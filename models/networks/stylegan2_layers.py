"""The layers of StyleGAN2 (Karras et al. 2020): mapping, modulated convolution, D's block.

`models.networks.stylegan2` builds the players of them. `paper` is False for `Style.revision` 1, the
form of earlier releases.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.networks.activations import leaky_relu
from models.networks.family import ImageShape, widen
from models.networks.layers import (
    SQRT_2,
    EqualizedConv2d,
    EqualizedLinear,
    PixelNorm,
    downsample_smooth,
    smooth,
)
from models.networks.row_rng import per_row

_MAPPING_LR = 0.01  # of the paper: the mapping network moves a hundred times slower


class Mapping(nn.Module):
    """[N, z_dim] (+ labels [N]) to w [N, w_dim]; with z_dim 0 a function of the label alone."""

    def __init__(
        self, shape: ImageShape, z_dim: int, w_dim: int, num_layers: int, *, paper: bool = True
    ) -> None:
        """paper: False for `Style.revision` 1."""
        super().__init__()
        self.embed = nn.Embedding(shape.num_classes, w_dim) if shape.num_classes else None
        self.norm = PixelNorm()
        num_in = z_dim + (w_dim if shape.num_classes else 0)
        self.layers = nn.ModuleList(
            EqualizedLinear(
                num_in if i == 0 else w_dim,
                w_dim,
                gain=1 if paper else SQRT_2,
                lr_multiplier=_MAPPING_LR,
            )
            for i in range(num_layers)
        )
        self.gain = SQRT_2 if paper else 1

    def forward(self, z: Tensor | None, label: Tensor | None = None) -> Tensor:
        """Normalises latent and embedded label to unit mean square, then runs the layers."""
        parts = [] if z is None else [self.norm(z)]
        if self.embed is not None:
            parts.append(self.norm(self.embed(label)))
        x = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        for layer in self.layers:
            x = activated(layer(x), self.gain)
        return x


class ModulatedConv2d(nn.Module):
    """A convolution whose weights a style scales by input channel, and normalises by output."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        w_dim: int,
        *,
        demodulate: bool,
        padding: int | None = None,
    ) -> None:
        """padding: zeros around the map; by default as many as keep the resolution."""
        super().__init__()
        self.padding = kernel // 2 if padding is None else padding
        self.style = EqualizedLinear(w_dim, channels_in, gain=1, bias_init=1)
        self.weight = nn.Parameter(torch.randn(channels_out, channels_in, kernel, kernel))
        self.scale = 1 / math.sqrt(channels_in * kernel**2)
        self.demodulate = demodulate

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """[N, in, H, W] and w [N, w_dim] to [N, out, H, W]."""
        style = widen(self.style(w))  # squares of it would overflow or lose bits in half precision
        weight = self.weight * self.scale
        y = functional.conv2d(x * style[:, :, None, None].to(x.dtype), weight, padding=self.padding)
        if not self.demodulate:
            return y
        # sum over (in, kernel) of (weight * style)^2, for each row and output channel.
        square = style.square() @ weight.square().sum((2, 3)).T
        return y * widen(square + 1e-8).rsqrt()[:, :, None, None].to(y.dtype)


class StyledLayer(nn.Module):
    """Modulated convolution, noise, bias, leaky ReLU."""

    noise: Tensor

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        size: tuple[int, int],
        w_dim: int,
        *,
        padding: int = 1,
    ) -> None:
        """size: height and width. padding: 0 where the map comes with a margin of one pixel."""
        super().__init__()
        self.conv = ModulatedConv2d(
            channels_in, channels_out, 3, w_dim, demodulate=True, padding=padding
        )
        self.bias = nn.Parameter(torch.zeros(channels_out))
        self.strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise", torch.randn(1, 1, *size))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Noise is drawn for each row in training; in evaluation it is the buffer's."""
        y = self.conv(x, w)
        noise = self.noise
        if self.training:
            size, dtype, place = noise.shape[1:], noise.dtype, noise.device
            noise = per_row(lambda num: torch.randn(num, *size, dtype=dtype, device=place), len(y))
        y = y + (noise * self.strength).to(y.dtype) + self.bias[:, None, None].to(y.dtype)
        return leaky_relu(y) * SQRT_2


class StyleBlock(nn.Module):
    """[N, in, H, W] to [N, out, H/2, W/2], of the variance that came in."""

    def __init__(self, channels_in: int, channels_out: int, *, paper: bool) -> None:
        """paper: False for `Style.revision` 1."""
        super().__init__()
        self.paper = paper
        gain = 1 if paper else SQRT_2
        self.conv_0 = EqualizedConv2d(channels_in, channels_in, 3, gain=gain)
        self.conv_1 = EqualizedConv2d(channels_in, channels_out, 3, gain=gain)
        self.shortcut = EqualizedConv2d(channels_in, channels_out, 1, gain=1, bias=not paper)

    def forward(self, x: Tensor) -> Tensor:
        """Adds the branch to the shortcut, and divides by sqrt 2: the variance stays."""
        shortcut = self.shortcut(downsample_smooth(x))
        total: Tensor
        if self.paper:
            # The whole map is smoothed, and the convolution takes every second place of it: its
            # 3x3 window sees neighbours of the full grid.
            y = smooth(activated(self.conv_0(x), SQRT_2), stride=1, padding=2)
            weight = self.conv_1.weight * self.conv_1.scale
            y = functional.conv2d(y, weight, self.conv_1.bias, stride=2)
            total = activated(y, SQRT_2) + shortcut
        else:
            y = downsample_smooth(leaky_relu(self.conv_0(x)))
            total = leaky_relu(self.conv_1(y)) + shortcut
        return total / SQRT_2


def activated(x: Tensor, gain: float) -> Tensor:
    """Leaky ReLU times the gain that keeps the variance; 1 where the weights have it already."""
    y = leaky_relu(x)
    return y if gain == 1 else y * gain
