"""A style-based pair after StyleGAN2 (Karras et al. 2020, arXiv:1912.04958).

A mapping network turns z into w; w scales the channels of every convolution of the synthesis
network, whose weights are then brought back to unit length (demodulation). Noise of learned
strength at every pixel, an image that is summed up over the resolutions (skip connections), style
mixing in training. D is residual, with a minibatch standard deviation.

(De)modulation acts on what goes into and comes out of an ordinary convolution, which is the same
sum as scaling its weights, row by row: so the graph has no weights that depend on the batch, and
exports in standard operators. Resampling is by the filter [1, 3, 3, 1]. Labels enter the mapping
network as an embedding beside z, and D through a mapping network of their own, whose output is
multiplied with a linear function of D's features (Karras et al. 2020, arXiv:2006.06676).
"""

import math
from collections.abc import Mapping as Dictionary
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from models.networks.family import (
    UP_TO_1024,
    Discriminator,
    Family,
    ImageShape,
    ProjectionDiscriminator,
    doubling_widths,
    family,
    widen,
)
from models.networks.layers import (
    SQRT_2,
    EqualizedConv2d,
    EqualizedLinear,
    MinibatchStd,
    upsample_bilinear,
    upsample_smooth,
)
from models.networks.row_rng import per_row
from models.networks.stylegan2_layers import (
    Mapping,
    ModulatedConv2d,
    StyleBlock,
    StyledLayer,
    activated,
)


class Synthesis(nn.Module):
    """Styles to [N, C, H, W], about [-1, 1]."""

    def __init__(
        self, shape: ImageShape, w_dim: int, widths: list[int], *, paper: bool = True
    ) -> None:
        """widths: of the maps at 4, 8, ... pixels. paper: False for `Style.revision` 1."""
        super().__init__()
        self.paper = paper
        self.start = nn.Parameter(torch.randn(widths[0], *shape.start))
        self.first = StyledLayer(widths[0], widths[0], shape.start, w_dim)
        self.layers = nn.ModuleList()
        for i in range(1, len(widths)):
            size = shape.start[0] << i, shape.start[1] << i
            first = StyledLayer(widths[i - 1], widths[i], size, w_dim, padding=0 if paper else 1)
            self.layers.append(first)
            self.layers.append(StyledLayer(widths[i], widths[i], size, w_dim))
        self.to_img = nn.ModuleList(
            ModulatedConv2d(width, shape.channels, 1, w_dim, demodulate=False) for width in widths
        )
        self.bias = nn.Parameter(torch.zeros(shape.channels))
        self.num_styles = 2 * len(widths)

    def forward(self, w: Tensor) -> Tensor:
        """W [N, w_dim], or one for each style, [N, num_styles, w_dim]."""
        styles = w[:, None].expand(-1, self.num_styles, -1) if w.ndim == 2 else w
        x = self.start.expand(styles.shape[0], -1, -1, -1)
        x = self.first(x, styles[:, 0])
        img = self.to_img[0](x, styles[:, 1])
        for i in range(1, len(self.to_img)):
            # The paper convolves and smooths on a plane without edges; in the other order, which is
            # cheaper, the first convolution must see one pixel of what is smoothed over the edge.
            x = upsample_smooth(x, margin=1) if self.paper else upsample_bilinear(x)
            x = self.layers[2 * i - 2](x, styles[:, 2 * i - 1])
            x = self.layers[2 * i - 1](x, styles[:, 2 * i])
            img = upsample_smooth(img) if self.paper else upsample_bilinear(img)
            img = img + self.to_img[i](x, styles[:, 2 * i + 1])
        return widen(img + self.bias[:, None, None].to(img.dtype))


class StyleGenerator(nn.Module):
    """[N, z_dim] (+ labels [N]) to [N, C, H, W], about [-1, 1]; a `Mapped` generator."""

    def __init__(self, mapping: Mapping, synthesis: Synthesis, *, mixing: float) -> None:
        """mixing: probability of a second w in training, row by row."""
        super().__init__()
        self.mapping = mapping
        self.synthesis = synthesis
        self.mixing = mixing

    def forward(
        self, z: Tensor, label: Tensor | None = None, *, with_styles: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Maps z to w and w to images; in training, some rows get a second w from a style on.

        with_styles: returns (images, styles [N, num_styles, w_dim]) that they were made of.
        """
        w = self.mapping(z, label)
        if self.training and self.mixing > 0:
            size, dtype, place = z.shape[1:], z.dtype, z.device
            other = per_row(lambda num: torch.randn(num, *size, dtype=dtype, device=place), len(z))
            w = self._mix(w, self.mapping(other, label))
        if with_styles and w.ndim == 2:
            w = w[:, None].expand(-1, self.synthesis.num_styles, -1)
        img: Tensor = self.synthesis(w)
        return (img, w) if with_styles else img

    def _mix(self, w: Tensor, other: Tensor) -> Tensor:
        """[N, num_styles, w_dim]: from a random style on, the other w, in a share of the rows."""
        num_styles, place = self.synthesis.num_styles, w.device
        # From 1 on: the first style is always the first w's, so both are used.
        crossover = per_row(
            lambda num: torch.randint(1, num_styles, (num, 1), device=place), len(w)
        )
        mixed = per_row(lambda num: torch.rand(num, 1, device=place), len(w)) < self.mixing
        late = torch.arange(num_styles, device=w.device) >= crossover
        return torch.where((late & mixed)[:, :, None], other[:, None], w[:, None])


class StyleDiscriminator(ProjectionDiscriminator):
    """[N, C, H, W] (+ labels [N]) to logits [N]."""

    def __init__(
        self,
        shape: ImageShape,
        widths: list[int],
        *,
        mbstd_group: int,
        mapping_layers: int,
        paper: bool,
    ) -> None:
        """widths: of the maps at 4, 8, ... pixels. paper: False for `Style.revision` 1."""
        super().__init__()
        gain = 1 if paper else SQRT_2
        self.gain = SQRT_2 if paper else 1
        self.from_img = EqualizedConv2d(shape.channels, widths[-1], 1, gain=gain)
        self.blocks = nn.Sequential(
            *(
                StyleBlock(widths[i], widths[i - 1], paper=paper)
                for i in reversed(range(1, len(widths)))
            )
        )
        self.mbstd = MinibatchStd(mbstd_group)
        self.last = EqualizedConv2d(widths[0] + 1, widths[0], 3, gain=gain)
        self.dense = EqualizedLinear(widths[0] * shape.start_pixels, widths[0], gain=gain)
        width = widths[0]
        self.mapping: Mapping | None = None
        if paper and shape.num_classes:
            self.mapping = Mapping(shape, 0, width, mapping_layers)
            self.head, self.embed = EqualizedLinear(width, width, gain=1), None
        else:
            head = EqualizedLinear(width, 1, gain=1)
            self.close(head, shape.num_classes, scale=1 / math.sqrt(width))

    def features(self, img: Tensor, label: Tensor | None = None) -> Tensor:
        """Returns the dense layer behind the minibatch standard deviation, [N, widths[0]]."""
        x = self.blocks(activated(self.from_img(img), self.gain))
        x = activated(self.last(self.mbstd(x)), self.gain)
        return activated(self.dense(x.flatten(1)), self.gain)

    def logits(self, features: Tensor, label: Tensor | None = None) -> Tensor:
        """The head's output or, with labels, its product with what the class is mapped to."""
        if self.mapping is None:
            return super().logits(features, label)
        found: Tensor = (self.head(features) * self.mapping(None, label)).sum(1)
        return found / math.sqrt(features.shape[1])


@family("style")
@dataclass(frozen=True, kw_only=True)
class Style(Family):
    """Style-based pair for 8 to 1,024 pixels."""

    maps: ClassVar[bool] = True
    before: ClassVar[Dictionary[str, Any]] = {"revision": 1}

    z_dim: int = 512
    """Width of the latent."""
    w_dim: int = 512
    """Width of w."""
    mapping_layers: int = 8
    """Perceptron layers from z to w."""
    channel_base: int = 16384
    """Channels of a map times its resolution, where channel_max allows so many."""
    channel_max: int = 512
    """Most channels of a map."""
    mixing: float = 0.9
    """Probability that an image is made of two w in training, in [0, 1]."""
    mbstd_group: int = 4
    """Images whose standard deviation D sees; at least 2."""
    revision: Literal[1, 2] = 2
    """2: the paper's networks. 1: those of earlier releases, for their weights: D drops pixels
    before it convolves, biases lie outside the gain, labels enter D by projection."""

    def __post_init__(self) -> None:
        """Refuses options that make no network."""
        super().__post_init__()
        self.require_at_least(1, "w_dim", "mapping_layers", "channel_base", "channel_max")
        self.require_at_least(2, "mbstd_group")
        if not 0 <= self.mixing <= 1:
            raise ValueError(f"mixing is {self.mixing}, must lie in [0, 1]")

    def check(self, shape: ImageShape) -> None:
        """Raises ValueError where the resolution is not reached by doubling, up to 1024."""
        self.require_resolution(shape, UP_TO_1024)

    def generator(self, shape: ImageShape) -> nn.Module:
        """Returns a G with N(0, 1) weights, scaled when used."""
        self.check(shape)
        widths = doubling_widths(shape, self.channel_base, self.channel_max)
        return StyleGenerator(
            Mapping(shape, self.z_dim, self.w_dim, self.mapping_layers, paper=self._is_papers),
            Synthesis(shape, self.w_dim, widths, paper=self._is_papers),
            mixing=self.mixing,
        )

    def discriminator(self, shape: ImageShape) -> Discriminator:
        """Returns a D with N(0, 1) weights, scaled when used."""
        self.check(shape)
        widths = doubling_widths(shape, self.channel_base, self.channel_max)
        return StyleDiscriminator(
            shape,
            widths,
            mbstd_group=self.mbstd_group,
            mapping_layers=self.mapping_layers,
            paper=self._is_papers,
        )

    @property
    def _is_papers(self) -> bool:
        return self.revision == 2
