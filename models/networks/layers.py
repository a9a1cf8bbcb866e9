"""Layers that several families share.

Runtime-scaled convolutions and linear layers, pixel norm, conditional batch norm, minibatch
standard deviation, dropout, resampling by two. All are differentiable twice. Knows no network.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.networks.activations import LRELU_SLOPE
from models.networks.family import widen
from models.networks.row_rng import per_row

LRELU_GAIN = math.sqrt(2 / (1 + LRELU_SLOPE**2))  # of leaky ReLU (He et al. 2015, eq. 14)
SQRT_2 = math.sqrt(2)


class EqualizedConv2d(nn.Conv2d):
    """A convolution whose weights are N(0, 1) and scaled when used (Karras et al. 2018, sec. 4.1).

    Every weight then has the same range and so the same speed under Adam, whatever its layer's
    width. Keeps the resolution: odd kernels, zero padding.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        *,
        gain: float = SQRT_2,
        bias: bool = True,
    ) -> None:
        """gain: of the nonlinearity that follows; 1 for none."""
        super().__init__(channels_in, channels_out, kernel, padding=kernel // 2, bias=bias)
        self.scale = gain / math.sqrt(channels_in * kernel**2)
        nn.init.normal_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] to [N, out, H, W]."""
        return functional.conv2d(x, self.weight * self.scale, self.bias, padding=self.padding)


class EqualizedLinear(nn.Linear):
    """A linear layer scaled likewise."""

    def __init__(
        self,
        num_in: int,
        num_out: int,
        *,
        gain: float = SQRT_2,
        bias_init: float = 0.0,
        lr_multiplier: float = 1.0,
    ) -> None:
        """lr_multiplier: parameters move so much slower than the optimiser's rate says."""
        super().__init__(num_in, num_out)
        self.scale = gain * lr_multiplier / math.sqrt(num_in)
        self.bias_scale = lr_multiplier
        nn.init.normal_(self.weight, std=1 / lr_multiplier)
        nn.init.constant_(self.bias, bias_init / lr_multiplier)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in] to [N, out]."""
        return functional.linear(x, self.weight * self.scale, self.bias * self.bias_scale)


class Dropout(nn.Module):
    """Zeroes a share of what it is given, in training; scales the rest, so that the mean stays.

    nn.Dropout's mask is drawn by `bernoulli_`, which takes three times as long on the CPU as
    uniform numbers do: a tenth of the article's game.
    """

    def __init__(self, share: float) -> None:
        """share: in [0, 1)."""
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape."""
        if not self.training or not self.share:
            return x
        kept = per_row(lambda num: torch.rand(num, *x.shape[1:], device=x.device), len(x))
        kept = kept.ge_(self.share).div_(1 - self.share)
        return x * kept.to(x.dtype)


class PixelNorm(nn.Module):
    """Unit mean square over the channels, at each pixel (Karras et al. 2018, sec. 4.2)."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, C] or [N, C, H, W] to the same."""
        mean_square = _channel_mean(widen(x).square())
        return x * (mean_square + 1e-8).rsqrt().to(x.dtype)


def _channel_mean(x: Tensor) -> Tensor:
    """Mean over dimension 1, kept.

    An exported graph takes it as a convolution: ONNX Runtime's ReduceMean over the channels of a
    map sums one row in another order than several, and an image must not depend on its batch.
    """
    if x.ndim == 4 and torch.compiler.is_exporting():
        weight = torch.full((1, x.shape[1], 1, 1), 1 / x.shape[1], dtype=x.dtype)
        return functional.conv2d(x, weight)
    return x.mean(1, keepdim=True)


class MinibatchStd(nn.Module):
    """One more channel: how much the images of a group differ (Karras et al. 2018, sec. 3).

    The standard deviation over the group, averaged over channels and pixels; the same number at
    every pixel of every image of the group. Groups are taken with a stride, as many rows in each
    as the batch can be divided into, `group_size` at most.
    """

    mixes_rows = True

    def __init__(self, group_size: int) -> None:
        super().__init__()
        self.group_size = group_size

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C + 1, H, W]."""
        num, _, height, width = x.shape
        # The largest group that divides the batch, so that no image is left over.
        size = next(size for size in range(min(self.group_size, num), 0, -1) if num % size == 0)
        groups = widen(x).reshape(size, num // size, -1)
        # Centred by hand: var() of one row warns and has no gradient.
        std = ((groups - groups.mean(0)).square().mean(0) + 1e-8).sqrt().mean(1)
        channel = std.repeat(size).to(x.dtype)[:, None, None, None].expand(num, 1, height, width)
        return torch.cat([x, channel], dim=1)


class ConditionalBatchNorm2d(nn.Module):
    """Batch norm whose gain and bias belong to the class (Dumoulin et al. 2017; de Vries 2017)."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain = nn.Embedding(num_classes, channels)
        self.bias = nn.Embedding(num_classes, channels)
        nn.init.ones_(self.gain.weight)
        nn.init.zeros_(self.bias.weight)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """[N, C, H, W] and label [N] to [N, C, H, W]."""
        gain = self.gain(label)[:, :, None, None].to(x.dtype)
        bias = self.bias(label)[:, :, None, None].to(x.dtype)
        scaled: Tensor = self.norm(x) * gain + bias
        return scaled


def upsample_nearest(x: Tensor) -> Tensor:
    """[N, C, H, W] to [N, C, 2H, 2W], each pixel four times."""
    return functional.interpolate(x, scale_factor=2, mode="nearest")


def upsample_bilinear(x: Tensor) -> Tensor:
    """[N, C, H, W] to [N, C, 2H, 2W], the filter [1, 3, 3, 1] of StyleGAN2 inside the image."""
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def upsample_smooth(x: Tensor, *, margin: Literal[0, 1] = 0) -> Tensor:
    """[N, C, H, W] to [N, C, 2H, 2W] by [1, 3, 3, 1] along each axis; zeros beyond the edge.

    margin: pixels on each side that are kept of what is smoothed over the edge.
    """
    # Bilinear resampling clamps at the edge: it is given the zeros, and they are cut off again.
    padded = functional.pad(x, (1, 1, 1, 1))
    cut = 2 - margin
    return upsample_bilinear(padded)[:, :, cut:-cut, cut:-cut]


def smooth(x: Tensor, *, stride: int, padding: int) -> Tensor:
    """Convolves each channel of [N, C, H, W] with [1, 3, 3, 1] / 8 along each axis."""
    # Computed where x is: numbers of the host would have to be sent there, which x's device waits
    # for. All of them are exact in any floating-point type.
    line = 0.5 - 0.25 * (torch.arange(4, dtype=x.dtype, device=x.device) - 1.5).abs()
    kernel = torch.outer(line, line)
    if x.device.type == "cpu":
        kernel = kernel.expand(x.shape[1], 1, 4, 4)
        return functional.conv2d(x, kernel, stride=stride, padding=padding, groups=x.shape[1])
    # Channels as rows: torch takes the second derivative of groups one by one, and a GPU waits for
    # each of the launches. The CPU is a tenth faster with groups.
    y = functional.conv2d(x.flatten(0, 1)[:, None], kernel[None, None], None, stride, padding)
    return y.view(*x.shape[:2], *y.shape[2:])


def downsample_smooth(x: Tensor) -> Tensor:
    """[N, C, H, W] to [N, C, H/2, W/2] by [1, 3, 3, 1] along each axis; zeros beyond the edge."""
    # Smoothed before every second pixel is dropped: high frequencies don't alias.
    return smooth(x, stride=2, padding=1)


def downsample(x: Tensor) -> Tensor:
    """[N, C, H, W] to [N, C, H/2, W/2]; the 2x2 mean is what bilinear resampling is at a half."""
    return functional.avg_pool2d(x, 2)
