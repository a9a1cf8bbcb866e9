"""torch's rectifiers bit for bit, without the zeros that those send back in a second derivative."""

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import grad, gradgradcheck
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from models.networks import DCGAN, ImageShape
from models.networks.activations import leaky_relu, relu

PAIRS = [(relu, functional.relu), (leaky_relu, lambda x: functional.leaky_relu(x, 0.2))]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bit_for_bit(ours, theirs, dtype):
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    x.view(-1)[:5] = torch.tensor([0.0, -0.0, 1e-45, -1e-45, float("inf")])
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    upstream = torch.randn_like(x)
    results = [(y, *grad(y, x, upstream)) for y in (ours(x), theirs(x))]
    for mine, torchs in zip(*results, strict=True):
        assert torch.equal(mine, torchs)
        assert mine.stride() == torchs.stride()
        assert torch.equal(torch.signbit(mine), torch.signbit(torchs))


@pytest.mark.parametrize("ours", [relu, leaky_relu])
def test_the_second_derivative(ours):
    """By what comes from above it is right, by x it is nothing at all."""
    x = torch.tensor([-2.0, -1.0, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    upstream = torch.ones_like(x, requires_grad=True)
    assert gradgradcheck(ours, x, upstream)
    (first,) = grad(ours(x), x, upstream, create_graph=True)
    by_upstream, by_x = grad(first.sum(), (upstream, x), allow_unused=True)
    slope = float(ours(torch.tensor(-1.0))) / -1
    assert by_upstream.tolist() == pytest.approx([slope, slope, 1, 1])
    assert by_x is None


def passes(layers: nn.Module, img: Tensor) -> float:
    """Arithmetic of a gradient penalty, in forward passes of the layers."""

    def flops(penalise: bool) -> int:
        with FlopCounterMode(display=False) as counter:
            logits = layers(img).sum()
            if penalise:
                (by_img,) = grad(logits, img, create_graph=True)
                grad(by_img.square().sum(), list(layers.parameters()), allow_unused=True)
        return int(counter.get_total_flops())

    return flops(penalise=True) / flops(penalise=False)


def test_a_gradient_penalty_costs_four_passes():
    """Forwards, back to the image, and each of these two differentiated by the weights."""
    img = torch.rand(4, 1, 32, 32, requires_grad=True) * 1  # the counter refuses leaves
    D = DCGAN(ndf=8).discriminator(ImageShape(channels=1, resolution=32))
    assert passes(D, img) < 4.1
