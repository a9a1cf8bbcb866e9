"""DCGAN (Radford et al. 2016) at 16 to 256 pixels, unconditional and class-conditional.

G grows a 4x4 map by 4x4/2 transposed convolutions, D shrinks the image by 4x4/2 convolutions, with
the paper's N(0, 0.02) initialisation. Labels enter G as an embedding beside z (Mirza and Osindero
2014) and D by projection (Miyato and Koyama 2018). Normalisation is batch norm, as in the paper, or
none for D: a gradient penalty acts on single images, and batch norm mixes them (Gulrajani et al.
2017, sec. 4). The paper ends at 64 pixels and eight times the channels; beyond, that is the most.
"""

import itertools
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from models.networks.family import Family, ImageShape, family

RESOLUTIONS = (16, 32, 64, 128, 256)
_MAX_MULTIPLE = 8


class DCGANGenerator(nn.Module):
    """[N, z_dim] (+ labels [N]) to [N, C, H, W] in [-1, 1]."""

    def __init__(self, shape: ImageShape, z_dim: int, embed_dim: int, widths: list[int]) -> None:
        """widths: channels of the maps at 4, 8, ... half the resolution."""
        super().__init__()
        self.embed = nn.Embedding(shape.num_classes, embed_dim) if shape.num_classes else None
        in_dim = z_dim + (embed_dim if shape.num_classes else 0)
        self.stem = nn.Sequential(
            nn.ConvTranspose2d(in_dim, widths[0], 4, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        )
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1, bias=False),
                    nn.BatchNorm2d(narrow),
                    nn.ReLU(),
                )
                for wide, narrow in itertools.pairwise(widths)
            )
        )
        self.to_img = nn.ConvTranspose2d(widths[-1], shape.channels, 4, stride=2, padding=1)
        self.apply(_initialise)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """See `models.networks`."""
        if self.embed is not None:
            z = torch.cat([z, self.embed(label)], dim=1)
        x = self.stem(z[:, :, None, None])
        img: Tensor = torch.tanh(self.to_img(self.blocks(x)))
        return img


class DCGANDiscriminator(nn.Module):
    """[N, C, H, W] (+ labels [N]) to logits [N]."""

    def __init__(self, shape: ImageShape, widths: list[int], *, batch_norm: bool) -> None:
        """widths: channels of the maps at half the resolution, ... 4."""
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(shape.channels, widths[0], 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
        ]
        for narrow, wide in itertools.pairwise(widths):
            layers.append(nn.Conv2d(narrow, wide, 4, stride=2, padding=1, bias=not batch_norm))
            if batch_norm:
                layers.append(nn.BatchNorm2d(wide))
            layers.append(nn.LeakyReLU(0.2))
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1] * 16, 1)
        self.embed = nn.Embedding(shape.num_classes, widths[-1] * 16) if shape.num_classes else None
        self.apply(_initialise)

    def forward(self, img: Tensor, label: Tensor | None = None) -> Tensor:
        """See `models.networks`."""
        features = self.layers(img).flatten(1)
        logits: Tensor = self.head(features).squeeze(1)
        if self.embed is not None:
            logits = logits + (self.embed(label) * features).sum(1)
        return logits


@family("dcgan")
@dataclass(frozen=True, kw_only=True)
class DCGAN(Family):
    """Convolutional pair for 16 to 256 pixels."""

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

    def __post_init__(self) -> None:
        """Refuses options that make no network."""
        super().__post_init__()
        if self.d_norm not in ("none", "batch"):
            raise ValueError(f"d_norm is {self.d_norm!r}, allowed are 'none' and 'batch'")
        for option in ("ngf", "ndf", "embed_dim"):
            if getattr(self, option) < 1:
                raise ValueError(f"{option} is {getattr(self, option)}, must be at least 1")

    def check(self, shape: ImageShape) -> None:
        """Raises ValueError where the resolution is not in RESOLUTIONS."""
        if shape.resolution not in RESOLUTIONS:
            raise ValueError(
                f"resolution is {shape.resolution}, the family 'dcgan' makes "
                f"{', '.join(map(str, RESOLUTIONS))}; set --data.resolution to one of them"
            )

    def generator(self, shape: ImageShape) -> nn.Module:
        """A freshly initialised G."""
        self.check(shape)
        return DCGANGenerator(shape, self.z_dim, self.embed_dim, _widths(shape, self.ngf)[::-1])

    def discriminator(self, shape: ImageShape) -> nn.Module:
        """A freshly initialised D."""
        self.check(shape)
        batch_norm = self.d_norm == "batch"
        return DCGANDiscriminator(shape, _widths(shape, self.ndf), batch_norm=batch_norm)


def _widths(shape: ImageShape, base: int) -> list[int]:
    """Channels at half the resolution, a quarter, ... 4 pixels."""
    num_maps = shape.resolution.bit_length() - 3
    return [base * min(2**i, _MAX_MULTIPLE) for i in range(num_maps)]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
