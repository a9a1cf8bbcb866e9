"""ReLU and leaky ReLU, whose second derivative costs nothing.

A penalty on D's gradient differentiates D twice. Rectifiers are linear but at zero, so that second
derivative adds nothing; torch's own yet give zeros, in tensors as large as the maps, and send them
back through every layer before: half as much arithmetic again (`benchmarks/training/penalties.py`).
These give the same bits without them, and keep their output, which the next layer keeps too,
instead of their input. Knows no network.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

LRELU_SLOPE = 0.2
"""Of all these papers' leaky ReLUs."""


class _Rectifier(torch.autograd.Function):
    """x where it is positive, slope * x where not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float) -> Tensor:
        y = functional.leaky_relu(x, slope) if slope else functional.relu(x)
        ctx.save_for_backward(y)
        ctx.slope = slope
        ctx.set_materialize_grads(False)  # nothing comes back: not a tensor of zeros
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, None]:
        if grad is None:
            return None, None
        y = ctx.saved_tensors[0].detach()  # a constant: what follows is linear in grad
        if y.is_contiguous(memory_format=torch.channels_last):
            # What comes back through flatten() is not, and both together take nine times as long.
            grad = grad.contiguous(memory_format=torch.channels_last)
        if ctx.slope:
            return torch.ops.aten.leaky_relu_backward(grad, y, ctx.slope, True), None
        return torch.ops.aten.threshold_backward(grad, y, 0), None


def relu(x: Tensor) -> Tensor:
    """max(x, 0); any shape."""
    return _rectified(x, 0.0)


def leaky_relu(x: Tensor, slope: float = LRELU_SLOPE) -> Tensor:
    """max(x, slope * x), 0 < slope < 1; any shape."""
    return _rectified(x, slope)


def _rectified(x: Tensor, slope: float) -> Tensor:
    if torch.compiler.is_compiling():  # exported or compiled: never differentiated twice
        return functional.leaky_relu(x, slope) if slope else functional.relu(x)
    y: Tensor = _Rectifier.apply(x, slope)
    return y


class ReLU(nn.Module):
    """ReLU as a layer of a sequence."""

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape."""
        return relu(x)


class LeakyReLU(nn.Module):
    """LeakyReLU(0.2) as a layer of a sequence."""

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape."""
        return leaky_relu(x)
