"""Generators and discriminators: a registry of families, one family a file.

A family is a frozen dataclass of options that builds both players for an image shape. Every
generator maps (z [N, z_dim] float32, label [N] int64 or None) to images [N, C, H, W] float32 in
[-1, 1], or about it where the paper has no bound (bytes are clamped); every discriminator maps
(images, label) to logits [N] float32 and, if asked, the features before them.
"""

from models.networks.dcgan import DCGAN
from models.networks.family import (
    FAMILIES,
    Discriminator,
    Encoding,
    Fading,
    Family,
    Growing,
    ImageShape,
    Mapped,
    family,
    scale_in_use,
)
from models.networks.maxout import MaxoutPair
from models.networks.mlp import MLP
from models.networks.plane import Plane
from models.networks.progressive import Progressive
from models.networks.r3gan import R3GAN
from models.networks.resnet import ResNet
from models.networks.stylegan2 import Style
from models.networks.vaegan import VAEGAN

__all__ = [
    "DCGAN",
    "FAMILIES",
    "MLP",
    "R3GAN",
    "VAEGAN",
    "Discriminator",
    "Encoding",
    "Fading",
    "Family",
    "Growing",
    "ImageShape",
    "Mapped",
    "MaxoutPair",
    "Plane",
    "Progressive",
    "ResNet",
    "Style",
    "family",
    "scale_in_use",
]
