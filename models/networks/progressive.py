"""Progressive growing (Karras et al. 2018): a pair that starts at 4x4 and doubles while it trains.

Stage k works at 4 * 2**k pixels. A new stage is faded in: its image is mixed with the upsampled one
of the stage before, by alpha from 0 to 1. G always gives the full resolution, nearest from its
stage; D averages what it sees down to its own. So data and loop know one size only, and the grown
generator is an ordinary network. Real images are mixed by alpha as well (`faded`).

Equalised learning rate, pixel norm and the minibatch standard deviation as in table 2 of the paper.
Labels, which the paper enters by AC-GAN, come as an embedding beside z and by projection in D.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.networks.activations import leaky_relu
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
    EqualizedConv2d,
    EqualizedLinear,
    MinibatchStd,
    PixelNorm,
    downsample,
    upsample_nearest,
)


@dataclass(frozen=True)
class Stage:
    """The stage at work, and how far it is faded in."""

    index: int
    """0 for 4x4."""
    alpha: float
    """Share of the stage's own image, in [0, 1]; the rest is the stage before."""

    @classmethod
    def at(cls, progress: float, num_stages: int, growth: float) -> "Stage":
        """Returns the stage; each but the last stays for as long as the next one fades in.

        Args:
            progress: share of the training that is done.
            num_stages: 4x4 among them.
            growth: share of the training in which the network grows; the last stage then stays.
        """
        if not 0 <= progress <= 1:
            raise ValueError(f"progress is {progress}, must lie in [0, 1]")
        num_phases = 2 * (num_stages - 1)
        if progress >= growth:
            return cls(num_stages - 1, 1.0)
        phase = progress / growth * num_phases
        whole = min(int(phase), num_phases - 1)
        # Phases take turns: a stage stays, then the next one fades in.
        if whole % 2 == 0:
            return cls(whole // 2, 1.0)
        return cls(whole // 2 + 1, min(phase - whole, 1.0))


class Growth(nn.Module):
    """A player's place in the schedule of stages."""

    alpha: Tensor

    def __init__(self, num_stages: int, growth: float) -> None:
        super().__init__()
        self.num_stages, self.growth = num_stages, growth
        self.stage, self.fading = num_stages - 1, False
        # A tensor, so that a compiled step is compiled anew for a stage only, not for each alpha.
        self.register_buffer("alpha", torch.ones(()), persistent=False)

    def move(self, progress: float) -> None:
        """Moves to where the schedule is at this share of the training, in [0, 1]."""
        now = Stage.at(progress, self.num_stages, self.growth)
        self.stage, self.fading = now.index, now.alpha < 1
        self.alpha.fill_(now.alpha)

    def mix(self, old: Tensor, new: Tensor) -> Tensor:
        """Returns old + alpha (new - old): the stage's own, faded in over the one before."""
        return old + self.alpha.to(new.dtype) * (new - old)


class ProgressiveGenerator(nn.Module):
    """[N, z_dim] (+ labels [N]) to [N, C, H, W], about [-1, 1]; a `Growing` network."""

    def __init__(
        self, shape: ImageShape, z_dim: int, widths: list[int], *, embed_dim: int, growth: float
    ) -> None:
        """widths: of the maps at 4, 8, ... pixels."""
        super().__init__()
        self.growth = Growth(len(widths), growth)
        self.embed = nn.Embedding(shape.num_classes, embed_dim) if shape.num_classes else None
        in_dim = z_dim + (embed_dim if shape.num_classes else 0)
        self.norm = PixelNorm()
        self.start = shape.start
        self.stem = EqualizedLinear(in_dim, widths[0] * shape.start_pixels)
        self.first = EqualizedConv2d(widths[0], widths[0], 3)
        self.convs_0 = nn.ModuleList(
            EqualizedConv2d(widths[i - 1], widths[i], 3) for i in range(1, len(widths))
        )
        self.convs_1 = nn.ModuleList(EqualizedConv2d(width, width, 3) for width in widths[1:])
        self.to_img = nn.ModuleList(
            EqualizedConv2d(width, shape.channels, 1, gain=1) for width in widths
        )

    def set_progress(self, progress: float) -> None:
        """Moves the stage and its alpha to where the schedule has them."""
        self.growth.move(progress)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Makes the image of the present stage, and enlarges it to the full resolution."""
        if self.embed is not None:
            z = torch.cat([z, self.embed(label)], dim=1)
        x = self.stem(self.norm(z))
        x = self.norm(leaky_relu(x.unflatten(1, (-1, *self.start))))
        x = before = self.norm(leaky_relu(self.first(x)))
        stage = self.growth.stage
        for i in range(stage):
            before = x
            x = self.norm(leaky_relu(self.convs_0[i](upsample_nearest(x))))
            x = self.norm(leaky_relu(self.convs_1[i](x)))
        img = widen(self.to_img[stage](x))
        if self.growth.fading:
            old = widen(self.to_img[stage - 1](before))
            img = self.growth.mix(upsample_nearest(old), img)
        # Always of the full size, so that data and loop needn't know of stages.
        for _ in range(stage, self.growth.num_stages - 1):
            img = upsample_nearest(img)
        return img


class ProgressiveDiscriminator(ProjectionDiscriminator):
    """[N, C, H, W] (+ labels [N]) to logits [N]; a `Growing` network."""

    def __init__(
        self, shape: ImageShape, widths: list[int], *, mbstd_group: int, growth: float
    ) -> None:
        """widths: of the maps at 4, 8, ... pixels."""
        super().__init__()
        self.growth = Growth(len(widths), growth)
        self.from_img = nn.ModuleList(EqualizedConv2d(shape.channels, width, 1) for width in widths)
        self.convs_0 = nn.ModuleList(EqualizedConv2d(width, width, 3) for width in widths[1:])
        self.convs_1 = nn.ModuleList(
            EqualizedConv2d(widths[i], widths[i - 1], 3) for i in range(1, len(widths))
        )
        self.mbstd = MinibatchStd(mbstd_group)
        self.last = EqualizedConv2d(widths[0] + 1, widths[0], 3)
        self.dense = EqualizedLinear(widths[0] * shape.start_pixels, widths[0])
        head = EqualizedLinear(widths[0], 1, gain=1)
        self.close(head, shape.num_classes, scale=1 / math.sqrt(widths[0]))

    def set_progress(self, progress: float) -> None:
        """Moves the stage and its alpha to where the schedule has them."""
        self.growth.move(progress)

    def faded(self, img: Tensor) -> Tensor:
        """Mixes real images with their blocks' means while a stage fades in (the paper's fig. 2).

        Without it D would tell real from generated images by their sharpness.
        """
        if not self.growth.fading:
            return img
        # Means over blocks of the stage before, each repeated; D averages down to its own stage.
        block = 1 << (self.growth.num_stages - self.growth.stage)
        coarse = functional.avg_pool2d(img, block)
        coarse = functional.interpolate(coarse, scale_factor=block, mode="nearest")
        return self.growth.mix(coarse, img)

    def features(self, img: Tensor, label: Tensor | None = None) -> Tensor:
        """Shrinks the image to the present stage's resolution, and runs the stages below it."""
        # Images come in full size, and are shrunk to what the present stage works at.
        now = self.growth.stage
        for _ in range(now, self.growth.num_stages - 1):
            img = downsample(img)
        x = leaky_relu(self.from_img[now](img))
        for i in reversed(range(now)):
            x = leaky_relu(self.convs_0[i](x))
            x = downsample(leaky_relu(self.convs_1[i](x)))
            if self.growth.fading and i == now - 1:
                old = leaky_relu(self.from_img[i](downsample(img)))
                x = self.growth.mix(old, x)
        x = leaky_relu(self.last(self.mbstd(x)))
        return leaky_relu(self.dense(x.flatten(1)))


@family("progressive")
@dataclass(frozen=True, kw_only=True)
class Progressive(Family):
    """Growing pair for 8 to 1,024 pixels."""

    z_dim: int = 512
    """Width of the latent."""
    channel_base: int = 16384
    """Channels of a map times its resolution, where channel_max allows so many."""
    channel_max: int = 512
    """Most channels of a map."""
    embed_dim: int = 128
    """Width of G's label embedding; unused without labels."""
    mbstd_group: int = 4
    """Images whose standard deviation D sees; at least 2."""
    growth: float = 0.5
    """Share of the training in which the pair grows, in [0, 1): half of it in each stage that
    stays, half in fading the next one in. 0 trains the whole network from the start."""

    def __post_init__(self) -> None:
        """Refuses options that make no network."""
        super().__post_init__()
        self.require_at_least(1, "channel_base", "channel_max", "embed_dim")
        self.require_at_least(2, "mbstd_group")
        if not 0 <= self.growth < 1:
            raise ValueError(
                f"growth is {self.growth}, must lie in [0, 1): the last stage needs time of its own"
            )

    def check(self, shape: ImageShape) -> None:
        """Raises ValueError where the resolution is not reached by doubling, up to 1024."""
        self.require_resolution(shape, UP_TO_1024)

    @property
    def grows_until(self) -> float:
        """The option `growth`."""
        return self.growth

    def generator(self, shape: ImageShape) -> nn.Module:
        """Returns a fully grown G with new weights."""
        self.check(shape)
        return ProgressiveGenerator(
            shape,
            self.z_dim,
            doubling_widths(shape, self.channel_base, self.channel_max),
            embed_dim=self.embed_dim,
            growth=self.growth,
        )

    def discriminator(self, shape: ImageShape) -> Discriminator:
        """Returns a fully grown D with new weights."""
        self.check(shape)
        return ProgressiveDiscriminator(
            shape,
            doubling_widths(shape, self.channel_base, self.channel_max),
            mbstd_group=self.mbstd_group,
            growth=self.growth,
        )
