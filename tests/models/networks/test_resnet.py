import pytest
import torch
from torch import nn

from models.networks import ImageShape, ResNet
from models.networks.layers import ConditionalBatchNorm2d
from tests.models.networks.tiny import inputs, players


def num_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_papers_network_for_cifar():
    """Miyato et al. 2018, table 4: 256 channels in G, 128 in D, sum pooling."""
    shape = ImageShape(resolution=32, channels=3)
    G, D = ResNet().generator(shape), ResNet().discriminator(shape)
    conv = 9 * 256 * 256 + 256
    up = 2 * conv + (256 * 256 + 256) + 2 * 512
    assert num_parameters(G) == 128 * 4096 + 4096 + 3 * up + 512 + 9 * 256 * 3 + 3
    conv = 9 * 128 * 128 + 128
    first = 9 * 3 * 128 + 128 + conv + 3 * 128 + 128
    down = 2 * conv + 128 * 128 + 128
    assert num_parameters(D) == first + down + 2 * (2 * conv) + 129


@pytest.mark.parametrize(
    ("resolution", "in_G", "in_D"),
    [
        (8, [256, 256], [3, 128, 128, 128]),
        (16, [256] * 3, [3, 128, 128, 128]),
        (64, [1024, 512, 256, 128, 64], [3, 64, 128, 256, 512, 1024]),
        (128, [1024, 1024, 512, 256, 128, 64], [3, 64, 128, 256, 512, 1024, 1024]),
    ],
)
def test_widths_are_the_papers(resolution, in_G, in_D):
    with torch.device("meta"):
        shape = ImageShape(resolution=resolution, channels=3)
        G, D = ResNet().generator(shape), ResNet().discriminator(shape)
    found = [block.conv_0.in_channels for block in G.blocks]
    assert [*found, G.to_img.in_channels] == in_G
    found = [block.conv_0.in_channels for block in D.blocks]
    assert [*found, D.head.in_features] == in_D


@pytest.mark.parametrize(
    ("options", "resolution", "in_G", "in_D"),
    [
        (ResNet(), 128, 32_150_787, 29_017_857),
        (ResNet(form="wide"), 128, 32_150_787, 38_419_137),
        (ResNet(form="wgan-gp", d_norm="layer"), 64, 8_541_443, 7_492_801),
        (ResNet(ngf=32, d_pool="mean"), 32, 1_204_483, 1_053_825),
    ],
)
def test_parameters(options, resolution, in_G, in_D):
    """SN-GAN's projection code at 128 pixels; WGAN-GP's code at 64 and 32, but for idle biases."""
    with torch.device("meta"):
        shape = ImageShape(resolution=resolution, channels=3)
        assert num_parameters(options.generator(shape)) == in_G
        assert num_parameters(options.discriminator(shape)) == in_D


def test_blocks_of_d_keep_their_channels_until_the_second_convolution():
    """Miyato et al.'s code: hidden channels are those that come in, but in the first block."""
    with torch.device("meta"):
        D = ResNet().discriminator(ImageShape(resolution=64, channels=3))
    inner = [(block.conv_0.out_channels, block.conv_1.out_channels) for block in D.blocks]
    assert inner == [(64, 64), (64, 128), (128, 256), (256, 512), (512, 1024)]


def test_wgan_gps_d_begins_with_a_convolution_and_sees_every_pixel():
    with torch.device("meta"):
        pair = ResNet(form="wgan-gp", d_norm="layer")
        D = pair.discriminator(ImageShape(resolution=64, channels=3))
    assert D.from_img.out_channels == 64
    assert [block.conv_1.out_channels for block in D.blocks] == [128, 256, 512, 512]
    assert all(not block.first and block.halve for block in D.blocks)
    assert D.head.in_features == 512 * 16


def test_pooling_sums_or_means_over_the_pixels():
    shape = ImageShape(resolution=32, channels=1)
    torch.manual_seed(0)
    D_sum = ResNet(ndf=2).discriminator(shape)
    D_mean = ResNet(ndf=2, d_pool="mean").discriminator(shape)
    D_mean.load_state_dict(D_sum.state_dict())
    img = torch.randn(2, 1, 32, 32)
    assert torch.allclose(D_sum.features(img), 64 * D_mean.features(img), rtol=1e-5)


def test_labels_choose_the_norm_or_stand_beside_z():
    shape = ImageShape(resolution=16, channels=1, num_classes=3)
    by_norm = ResNet(ngf=2).generator(shape)
    beside = ResNet(ngf=2, g_label="concat", embed_dim=5).generator(shape)
    kinds = [
        sum(isinstance(m, ConditionalBatchNorm2d) for m in G.modules()) for G in (by_norm, beside)
    ]
    assert kinds == [4, 0]
    assert beside.embed.weight.shape == (3, 5)
    assert by_norm.embed is None


def test_a_layer_norm_looks_at_its_own_image_only():
    _, D = players("resnet-concat-layer-mean")
    assert sum(isinstance(module, nn.GroupNorm) for module in D.modules()) == 5
    _, img, _ = inputs("resnet-concat-layer-mean")
    assert torch.allclose(D(img)[:1], D(img[:1]), atol=1e-5)


def test_the_projection_is_an_inner_product_with_the_features():
    _, D = players("resnet", num_classes=3)
    _, img, label = inputs("resnet", num_classes=3)
    logits, features = D(img, label, with_features=True)
    inner = (D.embed.weight[label] * features).sum(1)
    assert torch.allclose(logits, D.head(features).squeeze(1) + inner, atol=1e-5)
