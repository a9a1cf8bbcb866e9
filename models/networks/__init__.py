"""Generators and discriminators: a registry of families, one family a file.

A family is a frozen dataclass of options that builds both players for an image shape. Every
generator maps (z [N, z_dim] float32, label [N] int64 or None) to images [N, C, H, W] float32 in
[-1, 1]; every discriminator maps (images, label) to logits [N] float32.
"""

from models.networks.dcgan import DCGAN
from models.networks.family import FAMILIES, Family, Growing, ImageShape, family
from models.networks.mlp import MLP

__all__ = ["DCGAN", "FAMILIES", "MLP", "Family", "Growing", "ImageShape", "family"]
