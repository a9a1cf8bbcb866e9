"""DCGAN (Radford et al. 2016) at 8 to 256 pixels, unconditional and class-conditional.

G grows a 4x4 map by 4x4/2 transposed convolutions, D shrinks the image by 4x4/2 convolutions, with
the paper's N(0, 0.02) initialisation. Labels enter G as an embedding beside z (Mirza and Osindero
2014) and D by projection (Miyato and Koyama 2018). Normalisation is batch norm, as in the paper, or
none for D: a gradient penalty acts on single images, and batch norm mixes them (Gulrajani et al.
2017, sec. 4). D may see a batch's variety (Salimans et al. 2016, in the simpler form of Karras et
al. 2018). The paper ends at 64 pixels and eight times the channels; beyond, that is the most.
"""

import itertools
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from models.networks.activations import LeakyReLU, ReLU
from models.networks.family import (
    POWERS_OF_TWO,
    Discriminator,
    Family,
    ImageShape,
    ProjectionDiscriminator,
    family,
    widen,
)
from models.networks.layers import MinibatchStd

_MAX_MULTIPLE = 8
_MBSTD_GROUP = 4  # images, as in Karras et al. 2018


class DCGANGenerator(nn.Module):
    """[N, z_dim] (+ labels [N]) to [N, C, H, W] in [-1, 1]."""

    def __init__(self, shape: ImageShape, z_dim: int, embed_dim: int, widths: list[int]) -> None:
        """widths: channels of the maps at 4, 8, ... half the resolution."""
        super().__init__()
        self.embed = nn.Embedding(shape.num_classes, embed_dim) if shape.num_classes else None
        in_dim = z_dim + (embed_dim if shape.num_classes else 0)
        self.stem = nn.Sequential(
            nn.ConvTranspose2d(in_dim, widths[0], shape.start, bias=False),
            nn.BatchNorm2d(widths[0]),
            ReLU(),
        )
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1, bias=False),
                    nn.BatchNorm2d(narrow),
                    ReLU(),
                )
                for wide, narrow in itertools.pairwise(widths)
            )
        )
        self.to_img = nn.ConvTranspose2d(widths[-1], shape.channels, 4, stride=2, padding=1)
        self.apply(initialise)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Maps latents to images; the class is an embedding beside z."""
        if self.embed is not None:
            z = torch.cat([z, self.embed(label)], dim=1)
        x = self.stem(z[:, :, None, None])
        return widen(torch.tanh(self.to_img(self.blocks(x))))


def shrinking(channels: int, widths: list[int], *, batch_norm: bool) -> list[nn.Module]:
    """Returns the convolutions of D, from images to a 4x4 map of widths[-1] channels.

    widths: channels of the maps at half the resolution, ... 4.
    """
    layers: list[nn.Module] = [
        nn.Conv2d(channels, widths[0], 4, stride=2, padding=1),
        LeakyReLU(),
    ]
    for narrow, wide in itertools.pairwise(widths):
        # Batch norm subtracts the mean, and a bias with it.
        layers.append(nn.Conv2d(narrow, wide, 4, stride=2, padding=1, bias=not batch_norm))
        if batch_norm:
            layers.append(nn.BatchNorm2d(wide))
        layers.append(LeakyReLU())
    return layers


class DCGANDiscriminator(ProjectionDiscriminator):
    """[N, C, H, W] (+ labels [N]) to logits [N]."""

    def __init__(
        self, shape: ImageShape, widths: list[int], *, batch_norm: bool, mbstd: bool = False
    ) -> None:
        """widths: channels of the maps at half the resolution, ... 4."""
        super().__init__()
        layers = shrinking(shape.channels, widths, batch_norm=batch_norm)
        if mbstd:
            layers.append(MinibatchStd(_MBSTD_GROUP))
        self.layers = nn.Sequential(*layers)
        num_features = (widths[-1] + mbstd) * shape.start_pixels
        self.close(nn.Linear(num_features, 1), shape.num_classes)
        self.apply(initialise)

    def features(self, img: Tensor, label: Tensor | None = None) -> Tensor:
        """Flattens the last 4x4 map: [N, 16 channels], and one more with minibatch std."""
        features: Tensor = self.layers(img)
        return features.flatten(1)


@family("dcgan")
@dataclass(frozen=True, kw_only=True)
class DCGAN(Family):
    """Convolutional pair for 8 to 256 pixels."""

    initialises: ClassVar[bool] = False  # N(0, 0.02) relies on batch norm

    z_dim: int = 128
    """Width of the latent."""
    ngf: int = 64
    """Channels of G's widest-resolution map; they double as the map halves, up to 8 times."""
    ndf: int = 64
    """Channels of D's widest-resolution map; they double as the map halves, up to 8 times."""
    embed_dim: int = 32
    """Width of G's label embedding; unused without labels."""
    d_norm: Literal["none", "batch"] = "none"
    """Normalisation in D. The paper has batch; gradient penalties need none."""
    d_mbstd: bool = False
    """Shows D how much the images of a batch differ, four at a time, so that it sees a collapse."""

    def __post_init__(self) -> None:
        """Refuses options that make no network."""
        super().__post_init__()
        self.require_at_least(1, "ngf", "ndf", "embed_dim")
        self.require_one_of("d_norm", "none", "batch")

    def check(self, shape: ImageShape) -> None:
        """Raises ValueError where the resolution is not in POWERS_OF_TWO."""
        self.require_resolution(shape, POWERS_OF_TWO)

    @property
    def batch_norm_in_D(self) -> bool:
        """True with d_norm batch."""
        return self.d_norm == "batch"

    def generator(self, shape: ImageShape) -> nn.Module:
        """Returns a G with the paper's N(0, 0.02) weights."""
        self.check(shape)
        widths = channel_widths(shape, self.ngf)[::-1]
        return DCGANGenerator(shape, self.z_dim, self.embed_dim, widths)

    def discriminator(self, shape: ImageShape) -> Discriminator:
        """Returns a D with the paper's N(0, 0.02) weights."""
        self.check(shape)
        return DCGANDiscriminator(
            shape,
            channel_widths(shape, self.ndf),
            batch_norm=self.batch_norm_in_D,
            mbstd=self.d_mbstd,
        )


def channel_widths(shape: ImageShape, base: int) -> list[int]:
    """Channels at half the resolution, a quarter, ... 4 pixels."""
    return [base * min(2**i, _MAX_MULTIPLE) for i in range(shape.num_doublings)]


def initialise(module: nn.Module) -> None:
    """Draws one module's weights as the paper does; for `nn.Module.apply`."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
    elif isinstance(module, nn.Linear):  # the head, which is the paper's last convolution
        nn.init.normal_(module.weight, 0.0, 0.02)
        nn.init.zeros_(module.bias)
