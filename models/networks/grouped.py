"""Grouped convolutions whose second derivative is grouped as well.

torch differentiates the gradient of a grouped convolution group by group: one convolution and some
copies for each of hundreds of groups, at every layer, in every round with a gradient penalty. A GPU
waits for each of these launches. Here the three bilinear maps that belong to a convolution are each
other's derivatives, and each is one call: with T(x, w, y) = <convolve(x, w), y> they are T's
gradients by y, x and w. On the CPU torch's own way is as fast or faster, and is taken. This module
knows no network.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class GroupedConv2d(nn.Conv2d):
    """An nn.Conv2d with groups, stride 1 and zero padding that keeps the resolution."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] to [N, out, H, W]."""
        # What is compiled or exported takes torch's operator, too.
        if x.device.type == "cpu" or torch.compiler.is_compiling():
            return super().forward(x)
        assert isinstance(self.padding, tuple)
        y = grouped_conv2d(x, self.weight, padding=self.padding[0], groups=self.groups)
        return y if self.bias is None else y + self.bias[:, None, None].to(y.dtype)


class FullMapConv2d(nn.Conv2d):
    """An nn.Conv2d with a group for each channel whose kernel is as large as the map.

    What it computes is a weighted sum over each map; written as that, its derivatives of any order
    are a few operations, and not a few for each channel.
    """

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        """size: of the maps, in pixels."""
        super().__init__(channels, channels, size, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] of the kernel's size to [N, C, 1, 1]."""
        return (x * self.weight[:, 0]).sum((2, 3), keepdim=True)


def grouped_conv2d(x: Tensor, weight: Tensor, *, padding: int, groups: int) -> Tensor:
    """Convolves with stride 1, so that the resolution stays: padding is half of an odd kernel.

    x: [N, in, H, W]; weight: [out, in / groups, k, k]. Returns [N, out, H, W], differentiable any
    number of times by both.
    """
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        x, weight = x.to(dtype), weight.to(dtype)
    y: Tensor = _Convolve.apply(x, weight, padding, groups)
    return y


def _convolve(x: Tensor, w: Tensor, padding: int, groups: int) -> Tensor:
    return functional.conv2d(x, w, padding=padding, groups=groups)


def _convolve_back(y: Tensor, w: Tensor, padding: int, groups: int) -> Tensor:
    one, zero = [1, 1], [0, 0]
    x = y.new_empty((len(y), w.shape[1] * groups, *y.shape[2:]))  # its shape alone is looked at
    found: Tensor = torch.ops.aten.convolution_backward(
        y, x, w, None, one, [padding, padding], one, False, zero, groups, [True, False, False]
    )[0]
    return found


def _correlate(y: Tensor, x: Tensor, w: Tensor, padding: int, groups: int) -> Tensor:
    one, zero = [1, 1], [0, 0]
    found: Tensor = torch.ops.aten.convolution_backward(
        y, x, w, None, one, [padding, padding], one, False, zero, groups, [False, True, False]
    )[1]
    return found


class _Convolve(torch.autograd.Function):
    """T's gradient by y: the convolution."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, padding: int, groups: int) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.how = padding, groups
        return _convolve(x, w, padding, groups)

    @staticmethod
    def backward(ctx: Any, y: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        by_x, by_w = ctx.needs_input_grad[:2]
        return (
            _ConvolveBack.apply(y, w, *ctx.how) if by_x else None,
            _Correlate.apply(y, x, w, *ctx.how) if by_w else None,
            *(None, None),
        )


class _ConvolveBack(torch.autograd.Function):
    """T's gradient by x."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, w: Tensor, padding: int, groups: int) -> Tensor:
        ctx.save_for_backward(y, w)
        ctx.how = padding, groups
        return _convolve_back(y, w, padding, groups)

    @staticmethod
    def backward(ctx: Any, x: Tensor) -> tuple[Tensor | None, ...]:
        y, w = ctx.saved_tensors
        by_y, by_w = ctx.needs_input_grad[:2]
        return (
            _Convolve.apply(x, w, *ctx.how) if by_y else None,
            _Correlate.apply(y, x, w, *ctx.how) if by_w else None,
            *(None, None),
        )


class _Correlate(torch.autograd.Function):
    """T's gradient by w; w itself gives its shape alone."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, w: Tensor, padding: int, groups: int) -> Tensor:
        ctx.save_for_backward(y, x)
        ctx.how = padding, groups
        return _correlate(y, x, w, padding, groups)

    @staticmethod
    def backward(ctx: Any, w: Tensor) -> tuple[Tensor | None, ...]:
        y, x = ctx.saved_tensors
        by_y, by_x = ctx.needs_input_grad[:2]
        return (
            _Convolve.apply(x, w, *ctx.how) if by_y else None,
            _ConvolveBack.apply(y, w, *ctx.how) if by_x else None,
            *(None, None, None),
        )
