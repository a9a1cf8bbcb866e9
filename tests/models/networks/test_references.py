"""The papers' networks, computed once more from their formulas with the same weights, in float64.

A step is written as the references have it: zeros put between pixels, convolutions with full
support, filters of their own. Only numbers are compared, so what is cheap and what is literal may
differ.
"""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.networks import R3GAN, ImageShape, Style
from tests.models.networks.tiny import stirred

SQRT_2 = math.sqrt(2)
FIR = torch.outer(*[torch.tensor([1.0, 3, 3, 1], dtype=torch.float64) / 8] * 2)


def fir(x: Tensor, padding: tuple[int, int, int, int], gain: float = 1.0) -> Tensor:
    """Pads with zeros, and convolves each channel with the normalised [1, 3, 3, 1] filter."""
    kernel = (FIR * gain).expand(x.shape[1], 1, 4, 4)
    return functional.conv2d(functional.pad(x, padding), kernel, groups=x.shape[1])


def zeros_between(x: Tensor) -> Tensor:
    num, channels, height, width = x.shape
    out = x.new_zeros(num, channels, height, 2, width, 2)
    out[:, :, :, 0, :, 0] = x
    return out.view(num, channels, 2 * height, 2 * width)


def up(x: Tensor) -> Tensor:
    return fir(zeros_between(x), (2, 1, 2, 1), gain=4)


def down(x: Tensor) -> Tensor:
    return fir(x, (1, 1, 1, 1))[:, :, ::2, ::2]


def lrelu(x: Tensor, gain: float = SQRT_2) -> Tensor:
    return functional.leaky_relu(x, 0.2) * gain


def weight_of(layer: nn.Module) -> Tensor:
    return layer.weight * layer.scale


def of(network: nn.Module) -> nn.Module:
    return stirred(network.double())


def r3gan_body(layers: nn.Module, x: Tensor) -> Tensor:
    for layer in layers:
        if hasattr(layer, "narrow"):
            y = lrelu(functional.conv2d(x, layer.widen.weight, layer.widen.bias), 1)
            groups = layer.spatial.groups
            y = functional.conv2d(y, layer.spatial.weight, layer.spatial.bias, 1, 1, 1, groups)
            x = x + functional.conv2d(lrelu(y, 1), layer.narrow.weight)
        elif layer.up:
            x = up(layer.conv(x))
        else:
            x = layer.conv(down(x))
    return x


@pytest.mark.parametrize("num_classes", [0, 3])
def test_r3gan(num_classes: int) -> None:
    torch.manual_seed(0)
    options = R3GAN(z_dim=5, channel_base=256, channel_max=16, group_width=4, embed_dim=3)
    shape = ImageShape(resolution=32, channels=3, num_classes=num_classes)
    G, D = of(options.generator(shape)), of(options.discriminator(shape))
    z, img = torch.randn(4, 5).double(), torch.randn(4, 3, 32, 32).double()
    label = torch.tensor([0, 2, 1, 2]) if num_classes else None
    given = z if label is None else torch.cat([z, G.embed.weight[label]], 1)
    x = G.basis[None] * (given @ G.modulation.weight.T)[:, :, None, None]
    expected = functional.conv2d(r3gan_body(G.layers, x), G.to_img.weight)
    torch.testing.assert_close(G(z, label), expected, rtol=1e-10, atol=1e-10)
    x = r3gan_body(D.layers, functional.conv2d(img, D.from_img.weight))
    features = (x * D.basis.weight[None, :, 0]).sum((2, 3))
    out = features @ D.head.weight.T
    logits = out[:, 0] if label is None else (out * D.embed.weight[label]).sum(1)
    torch.testing.assert_close(D(img, label), logits, rtol=1e-10, atol=1e-10)


def test_r3gans_embeddings_have_the_papers_scale() -> None:
    """MSR's N(0, 1 / fan-in) of a linear layer on one-hot labels, D's by its width."""
    torch.manual_seed(0)
    options = R3GAN(channel_base=512, channel_max=64, embed_dim=64)
    shape = ImageShape(resolution=8, channels=3, num_classes=100)
    G, D = options.generator(shape), options.discriminator(shape)
    assert G.embed.weight.std().item() == pytest.approx(1 / 10, rel=0.05)
    assert D.embed.weight.std().item() == pytest.approx(1 / 80, rel=0.05)
    names = {name for network in (G, D) for name, _ in network.named_parameters()}
    assert not names & {"modulation.bias", "head.bias"}


def mapped(mapping: nn.Module, parts: list[Tensor]) -> Tensor:
    def normalised(x: Tensor) -> Tensor:
        return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()

    x = torch.cat([normalised(part) for part in parts], 1)
    for layer in mapping.layers:
        rate = 0.01 / math.sqrt(x.shape[1])
        x = lrelu(x @ (layer.weight * rate).T + layer.bias * 0.01)
    return x


def modulated(x: Tensor, layer: nn.Module, w: Tensor, *, twice: bool = False) -> Tensor:
    """Each row by weights of its own (Karras et al. 2020, eq. 1 and 3), as the reference has it."""
    rows = []
    for row in range(len(x)):
        style = w[row] @ weight_of(layer.style).T + layer.style.bias
        weight = weight_of(layer) * style[None, :, None, None]
        if layer.demodulate:
            weight = weight * (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).rsqrt()
        one = x[row : row + 1]
        if twice:
            wide = functional.conv_transpose2d(one, weight.flip((2, 3)).transpose(0, 1), stride=2)
            rows.append(fir(wide, (1, 1, 1, 1), gain=4))
        else:
            rows.append(functional.conv2d(one, weight, padding=weight.shape[2] // 2))
    return torch.cat(rows)


def styled(x: Tensor, layer: nn.Module, w: Tensor, *, twice: bool = False) -> Tensor:
    y = modulated(x, layer.conv, w, twice=twice)
    return lrelu(y + layer.noise * layer.strength + layer.bias[:, None, None])


@pytest.mark.parametrize("num_classes", [0, 3])
def test_stylegan2s_generator(num_classes: int) -> None:
    torch.manual_seed(0)
    options = Style(z_dim=5, w_dim=6, mapping_layers=2, channel_base=64, channel_max=6)
    shape = ImageShape(resolution=16, channels=3, num_classes=num_classes)
    G = of(options.generator(shape)).eval()
    z = torch.randn(3, 5).double()
    label = torch.tensor([0, 2, 1]) if num_classes else None
    parts = [z] if label is None else [z, G.mapping.embed.weight[label]]
    w = mapped(G.mapping, parts)
    synthesis = G.synthesis
    x = styled(synthesis.start[None].expand(3, -1, -1, -1), synthesis.first, w)
    img = modulated(x, synthesis.to_img[0], w)
    for i in (1, 2):
        x = styled(x, synthesis.layers[2 * i - 2], w, twice=True)
        x = styled(x, synthesis.layers[2 * i - 1], w)
        img = up(img) + modulated(x, synthesis.to_img[i], w)
    img = img + synthesis.bias[:, None, None]
    torch.testing.assert_close(G(z, label), img, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("num_classes", [0, 3])
def test_stylegan2s_discriminator(num_classes: int) -> None:
    torch.manual_seed(0)
    options = Style(mapping_layers=2, channel_base=64, channel_max=6)
    shape = ImageShape(resolution=16, channels=3, num_classes=num_classes)
    D = of(options.discriminator(shape))
    img = torch.randn(4, 3, 16, 16).double()
    label = torch.tensor([0, 2, 1, 2]) if num_classes else None

    def conv(x: Tensor, layer: nn.Module, gain: float = SQRT_2) -> Tensor:
        padding = layer.weight.shape[2] // 2
        return lrelu(functional.conv2d(x, weight_of(layer), layer.bias, padding=padding), gain)

    x = conv(img, D.from_img)
    for block in D.blocks:
        assert block.shortcut.bias is None
        shortcut = functional.conv2d(down(x), weight_of(block.shortcut)) * math.sqrt(0.5)
        x = fir(conv(x, block.conv_0), (2, 2, 2, 2))
        y = functional.conv2d(x, weight_of(block.conv_1), block.conv_1.bias, stride=2)
        x = lrelu(y, 1) + shortcut  # sqrt 2 times sqrt 1/2
    groups = x.view(4, 1, *x.shape[1:])
    spread = (groups.var(0, correction=0) + 1e-8).sqrt().mean((1, 2, 3))
    x = torch.cat([x, spread[:, None, None, None].expand(4, 1, 4, 4)], 1)
    x = conv(x, D.last).flatten(1)
    x = lrelu(x @ weight_of(D.dense).T + D.dense.bias)
    x = x @ weight_of(D.head).T + D.head.bias
    logits = x[:, 0]
    if label is not None:
        by_class = mapped(D.mapping, [D.mapping.embed.weight[label]])
        logits = (x * by_class).sum(1) / math.sqrt(6)
    torch.testing.assert_close(D(img, label), logits, rtol=1e-9, atol=1e-9)
