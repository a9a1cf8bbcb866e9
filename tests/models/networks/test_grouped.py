"""Convolutions in groups: the same numbers as torch's, derivatives of any order in few calls."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from models.networks import ImageShape, layers
from models.networks.grouped import FullMapConv2d, GroupedConv2d, grouped_conv2d
from models.networks.r3gan import R3GAN


class Convolutions(TorchDispatchMode):
    """Counts them."""

    num = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.num += "convolution" in func._schema.name
        return func(*args, **(kwargs or {}))


def penalty(y: Tensor, x: Tensor, w: Tensor) -> list[Tensor]:
    """The gradients of a gradient penalty, and of what it is taken of."""
    first = torch.autograd.grad(y.square().sum(), (x, w), create_graph=True)
    loss = first[0].square().sum() + first[1].square().sum()
    return [*first, *torch.autograd.grad(loss, (x, w))]


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_it_is_torch_s_convolution_with_both_derivatives(groups: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 8, 5, 6, dtype=torch.float64, requires_grad=True)
    w = torch.randn(4, 8 // groups, 3, 3, dtype=torch.float64, requires_grad=True)
    ours = grouped_conv2d(x, w, padding=1, groups=groups)
    theirs = functional.conv2d(x, w, padding=1, groups=groups)
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(penalty(ours, x, w), penalty(theirs, x, w), strict=True):
        torch.testing.assert_close(a, b)
    assert torch.autograd.gradgradcheck(
        lambda x, w: grouped_conv2d(x, w, padding=1, groups=groups),
        (x[:1, :, :3, :3].detach().requires_grad_(), w),
    )


def test_it_computes_in_bfloat16_under_autocast() -> None:
    x, w = torch.randn(2, 4, 5, 5, requires_grad=True), torch.randn(4, 2, 3, 3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        ours = grouped_conv2d(x, w, padding=1, groups=2)
        theirs = functional.conv2d(x, w, padding=1, groups=2)
    assert ours.dtype == theirs.dtype == torch.bfloat16
    torch.testing.assert_close(ours, theirs)
    assert [g.dtype for g in penalty(ours.float(), x, w)] == [torch.float32] * 4


def test_a_weighted_sum_over_each_map_is_the_convolution_as_large_as_the_map() -> None:
    # In float64: sums in another order differ by rounding alone, whatever the draw.
    ours = FullMapConv2d(6, (4, 3)).double()
    theirs = nn.Conv2d(6, 6, (4, 3), groups=6, bias=False).double()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(5, 6, 4, 3, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(ours(x), theirs(x))
    for a, b in zip(
        penalty(ours(x), x, ours.weight), penalty(theirs(x), x, theirs.weight), strict=True
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("stride", "padding"), [(1, 2), (2, 1)])
def test_smoothing_on_a_gpu_has_the_shape_that_it_has_on_the_cpu(stride: int, padding: int) -> None:
    """The meta device takes the way of a GPU; its numbers are those of a depthwise convolution."""
    x = torch.randn(2, 3, 8, 6)
    on_cpu = layers.smooth(x, stride=stride, padding=padding)
    on_gpu = layers.smooth(x.to("meta"), stride=stride, padding=padding)
    assert on_gpu.shape == on_cpu.shape
    line = torch.tensor([1.0, 3, 3, 1]) / 8
    one = functional.conv2d(
        x.flatten(0, 1)[:, None], torch.outer(line, line)[None, None], None, stride, padding
    )
    assert torch.equal(on_cpu, one.view_as(on_cpu))


def test_no_layer_of_r3gan_is_differentiated_group_by_group() -> None:
    """On the device of no numbers, which takes the way of a GPU."""
    family = R3GAN(channel_base=1024, channel_max=128, num_blocks=1, group_width=2)
    D = family.discriminator(ImageShape(resolution=16, channels=3)).to("meta")
    assert max(m.groups for m in D.modules() if isinstance(m, GroupedConv2d)) == 128
    x = torch.empty(2, 3, 16, 16, device="meta", requires_grad=True)
    with Convolutions() as seen:
        (gradient,) = torch.autograd.grad(D(x).sum(), x, create_graph=True)
        torch.autograd.grad(gradient.square().sum(), list(D.parameters()), allow_unused=True)
    assert 0 < seen.num < 128
