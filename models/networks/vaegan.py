"""VAE-GAN (Larsen et al. 2016): DCGAN's pair with an encoder trained beside the generator.

The encoder is DCGAN's D with batch norm, as in the paper, ended by a mean and a log variance of z.
Labels, where they are, reach it as an embedding beside its last features.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from models.networks.dcgan import (
    DCGAN,
    DCGANGenerator,
    channel_widths,
    initialise,
    shrinking,
)
from models.networks.family import ImageShape, family, widen
from models.networks.row_rng import per_row


class Encoder(nn.Module):
    """[N, C, H, W] (+ labels [N]) to the posterior's mu and logvar, each [N, z_dim]."""

    def __init__(self, shape: ImageShape, z_dim: int, embed_dim: int, widths: list[int]) -> None:
        """widths: channels of the maps at half the resolution, ... 4."""
        super().__init__()
        self.layers = nn.Sequential(*shrinking(shape.channels, widths, batch_norm=True))
        self.embed = nn.Embedding(shape.num_classes, embed_dim) if shape.num_classes else None
        num_features = widths[-1] * shape.start_pixels
        num_features += embed_dim if shape.num_classes else 0
        self.head = nn.Linear(num_features, 2 * z_dim)
        self.apply(initialise)

    def forward(self, img: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Maps images in [-1, 1] to the mean and log variance of z."""
        x = self.layers(img).flatten(1)
        if self.embed is not None:
            x = torch.cat([x, self.embed(label)], dim=1)
        mu, logvar = widen(self.head(x)).chunk(2, dim=1)
        return mu, logvar


class VAEGANGenerator(DCGANGenerator):
    """DCGAN's G with an encoder; an `Encoding` generator."""

    def __init__(self, shape: ImageShape, z_dim: int, embed_dim: int, ngf: int, nef: int) -> None:
        """ngf, nef: channels of the generator's and the encoder's widest-resolution map."""
        super().__init__(shape, z_dim, embed_dim, channel_widths(shape, ngf)[::-1])
        self.encoder = Encoder(shape, z_dim, embed_dim, channel_widths(shape, nef))

    def forward(  # type: ignore[override]  # the base has no encoder
        self, z: Tensor | None, label: Tensor | None = None, *, img: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Images of z; or, given images, (their reconstructions, mu, logvar).

        The reconstruction is of mu + exp(logvar / 2) eps, eps drawn by torch's global generator; z
        is not looked at.
        """
        if img is None:
            assert z is not None
            return super().forward(z, label)
        mu, logvar = self.encoder(img, label)
        size, dtype, place = mu.shape[1:], mu.dtype, mu.device
        eps = per_row(lambda num: torch.randn(num, *size, dtype=dtype, device=place), len(mu))
        # Reparametrised: the sample is a differentiable function of mu and logvar.
        posterior = mu + (logvar / 2).exp() * eps
        return super().forward(posterior, label), mu, logvar


@family("vaegan")
@dataclass(frozen=True, kw_only=True)
class VAEGAN(DCGAN):
    """DCGAN's pair and an encoder for 8 to 256 pixels."""

    encodes: ClassVar[bool] = True

    nef: int = 64
    """Channels of the encoder's widest-resolution map; they double as the map halves, up to 8."""

    def __post_init__(self) -> None:
        """Refuses options that make no network."""
        super().__post_init__()
        self.require_at_least(1, "nef")

    def generator(self, shape: ImageShape) -> nn.Module:
        """Returns a G and its encoder with N(0, 0.02) weights."""
        self.check(shape)
        return VAEGANGenerator(shape, self.z_dim, self.embed_dim, self.ngf, self.nef)
