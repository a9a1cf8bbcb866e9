"""Every family at a size that costs nothing, and networks whose every parameter has a say."""

import torch
from torch import nn

from models.networks import (
    DCGAN,
    FAMILIES,
    MLP,
    R3GAN,
    VAEGAN,
    Family,
    ImageShape,
    MaxoutPair,
    Progressive,
    ResNet,
    Style,
)

OF_IMAGES = {name: cls for name, cls in FAMILIES.items() if not cls.points}
"""The families of images: points of the plane have a test of their own, test_plane.py."""

TINY: dict[str, Family] = {
    "mlp": MLP(z_dim=5, hidden=8),
    "maxout": MaxoutPair(z_dim=5, hidden=8, units=6, pieces=2),
    "dcgan": DCGAN(z_dim=5, ngf=4, ndf=4, embed_dim=3),
    "dcgan-batch-mbstd": DCGAN(z_dim=5, ngf=4, ndf=4, embed_dim=3, d_norm="batch", d_mbstd=True),
    "resnet": ResNet(z_dim=5, ngf=2, ndf=2),
    "resnet-concat-layer-mean": ResNet(
        z_dim=5, ngf=2, ndf=2, g_label="concat", embed_dim=3, d_norm="layer", d_pool="mean"
    ),
    "progressive": Progressive(z_dim=5, channel_base=64, channel_max=6, embed_dim=3),
    "r3gan": R3GAN(z_dim=5, channel_base=1024, channel_max=4, group_width=4, embed_dim=3),
    "style": Style(z_dim=5, w_dim=6, mapping_layers=2, channel_base=64, channel_max=6),
    "vaegan": VAEGAN(z_dim=5, ngf=4, ndf=4, nef=4, embed_dim=3),
}


def classes(name: str, num: int = 3) -> int:
    """So many classes where the family takes labels."""
    return 0 if name in ("mlp", "maxout") else num


def stirred(network: nn.Module, seed: int = 1) -> nn.Module:
    """The network with noise on every parameter: none is zero, no branch is closed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return network


def players(
    name: str, *, resolution: int = 16, channels: int = 1, num_classes: int = 0
) -> tuple[nn.Module, nn.Module]:
    """Both players, stirred."""
    torch.manual_seed(0)
    shape = ImageShape(resolution=resolution, channels=channels, num_classes=num_classes)
    G, D = TINY[name].generator(shape), TINY[name].discriminator(shape)
    return stirred(G), stirred(D)


def inputs(
    name: str, num: int = 6, *, resolution: int = 16, channels: int = 1, num_classes: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """(z, img, label) of so many rows."""
    generator = torch.Generator().manual_seed(2)
    z = torch.randn(num, TINY[name].z_dim, generator=generator)
    img = torch.rand(num, channels, resolution, resolution, generator=generator) * 2 - 1
    return z, img, torch.arange(num) % num_classes if num_classes else None
