import math

import pytest
import torch
from torch.nn import functional

from models.networks.activations import leaky_relu
from models.networks.layers import (
    LRELU_GAIN,
    ConditionalBatchNorm2d,
    Dropout,
    EqualizedConv2d,
    EqualizedLinear,
    MinibatchStd,
    PixelNorm,
    downsample,
    downsample_smooth,
    upsample_bilinear,
    upsample_nearest,
)


def test_pixel_norm_makes_unit_mean_square():
    x = torch.randn(3, 7, 4, 4) * 5 + 2
    assert torch.allclose(PixelNorm()(x).square().mean(1), torch.ones(3, 4, 4), atol=1e-5)
    z = torch.tensor([[3.0, 4.0]])  # mean square 12.5
    assert torch.allclose(PixelNorm()(z), z / math.sqrt(12.5))


def test_equalised_layers_scale_when_they_are_used():
    torch.manual_seed(0)
    conv = EqualizedConv2d(50, 40, 3)
    assert conv.weight.std().item() == pytest.approx(1, rel=0.02)
    assert conv.scale == math.sqrt(2 / (50 * 9))
    x = torch.randn(2, 50, 6, 6)
    assert torch.allclose(conv(x), functional.conv2d(x, conv.weight * conv.scale, padding=1))
    linear = EqualizedLinear(300, 200, gain=1, bias_init=0.5, lr_multiplier=0.01)
    assert linear.weight.std().item() == pytest.approx(100, rel=0.02)
    x = torch.randn(400, 300)
    assert linear(x).mean().item() == pytest.approx(0.5, abs=0.02)
    assert linear(x).std().item() == pytest.approx(1, rel=0.05)
    # One unit of a weight's change moves the output lr_multiplier times as far.
    before = linear(x)
    with torch.no_grad():
        linear.bias += 1
    assert torch.allclose(linear(x) - before, torch.full_like(before, 0.01), atol=1e-5)


def test_the_gains_keep_the_mean_square():
    torch.manual_seed(0)
    x = torch.randn(100_000)
    assert (LRELU_GAIN * leaky_relu(x)).square().mean().item() == pytest.approx(1, rel=0.02)


def test_minibatch_standard_deviation_by_hand():
    # Two groups of two, taken with a stride: rows 0 and 2, rows 1 and 3.
    x = torch.tensor([0.0, 5.0, 2.0, 5.0])[:, None, None, None].expand(4, 3, 2, 2)
    y = MinibatchStd(2)(x)
    assert y.shape == (4, 4, 2, 2)
    assert torch.equal(y[:, :3], x)
    expected = torch.tensor([1.0, 1e-4, 1.0, 1e-4])  # sqrt(1e-8) where rows are equal
    assert torch.allclose(y[:, 3], expected[:, None, None].expand(4, 2, 2))
    assert MinibatchStd.mixes_rows


@pytest.mark.parametrize(("num", "size"), [(1, 1), (2, 2), (4, 4), (6, 3), (7, 1), (12, 4)])
def test_a_group_is_as_large_as_the_batch_divides(num, size):
    x = torch.randn(num, 2, 3, 3)
    channel = MinibatchStd(4)(x)[:, 2, 0, 0]
    assert torch.allclose(channel, channel[: num // size].repeat(size))
    groups = x.reshape(size, num // size, -1)
    expected = (groups.var(0, correction=0) + 1e-8).sqrt().mean(1)
    assert torch.allclose(channel[: num // size], expected)


def test_a_class_has_its_own_gain_and_bias():
    norm = ConditionalBatchNorm2d(2, 3)
    x = torch.randn(6, 2, 4, 4) * 3 + 1
    label = torch.tensor([0, 1, 2, 0, 1, 2])
    plain = functional.batch_norm(x, None, None, training=True)
    assert torch.allclose(norm(x, label), plain, atol=1e-5)  # at first no class differs
    with torch.no_grad():
        norm.gain.weight[1], norm.bias.weight[2] = 2.0, 7.0
    y = norm(x, label)
    assert torch.allclose(y[[0, 3]], plain[[0, 3]], atol=1e-5)
    assert torch.allclose(y[[1, 4]], 2 * plain[[1, 4]], atol=1e-5)
    assert torch.allclose(y[[2, 5]], plain[[2, 5]] + 7, atol=1e-5)


def test_resampling():
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(upsample_nearest(x), x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert torch.allclose(downsample(upsample_nearest(x)), x)
    half = functional.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False)
    assert torch.allclose(downsample(x), half, atol=1e-6)
    # Inside, bilinear upsampling is zeros between the pixels and [1, 3, 3, 1] / 4 along each axis.
    spread = torch.zeros(2, 3, 16, 16)
    spread[:, :, ::2, ::2] = x
    line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
    kernel = torch.outer(line, line).expand(3, 1, 4, 4)
    expected = functional.conv2d(spread, kernel, padding=2, groups=3)[:, :, :16, :16]
    inside = (..., slice(1, -1), slice(1, -1))
    assert torch.allclose(upsample_bilinear(x)[inside], expected[inside], atol=1e-6)


def test_smooth_downsampling_is_the_adjoint_of_bilinear_upsampling():
    torch.manual_seed(0)
    small, large = torch.randn(1, 2, 8, 8), torch.randn(1, 2, 16, 16)
    small[..., [0, -1], :] = small[..., :, [0, -1]] = 0  # at the edge upsampling repeats pixels
    # The filter sums to 1 here and to 4 there, as upsampling makes four pixels of one.
    left = (upsample_bilinear(small) * large).sum()
    right = 4 * (small * downsample_smooth(large)).sum()
    assert left.item() == pytest.approx(right.item(), rel=1e-4)
    ones = downsample_smooth(torch.ones(1, 2, 8, 8))
    assert torch.allclose(ones[..., 1:-1, 1:-1], torch.ones(1, 2, 2, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_zeroes_its_share_and_keeps_the_mean(dtype):
    torch.manual_seed(0)
    layer, num = Dropout(0.3), 100_000
    x = torch.ones(num, dtype=dtype, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert y.dtype == dtype
    assert set(y.tolist()) == {0.0, float(torch.tensor(1 / 0.7).to(dtype))}
    assert (y == 0).float().mean().item() == pytest.approx(0.3, abs=4 * (0.21 / num) ** 0.5)
    assert torch.equal(x.grad, y)
    assert not torch.equal(layer(x), y)


def test_dropout_leaves_what_is_judged_alone():
    x = torch.randn(5)
    assert Dropout(0.3).eval()(x) is x
    assert Dropout(0.0)(x) is x
