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
        (64, [512, 512, 256, 128, 64], [3, 64, 128, 256, 512, 512]),
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
