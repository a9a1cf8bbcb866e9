"""The network that finds latents: residual passes of one encoder around a frozen generator.

z <- z + E([x, G(z), mask], z, label), a few times (ReStyle: Alaluf et al. 2021, eq. 4). It sees the
image, what the latent so far makes of it, and which pixels are known. Its maps begin at half the
resolution: on a CPU full maps would cost more than all the others. Rows never mix: the only norm is
over the features of a row.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.networks import ImageShape

_LEAST_SIDE = 4  # of the last map
_MAX_MULTIPLE = 8
_LABEL_DIM = 16
_SLOPE = 0.2


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The encoder's size."""

    width: int = 32
    """Channels of its widest-resolution map; they double as the map halves, up to 8 times."""
    hidden: int = 512
    """Width of the layers behind the maps."""
    passes: int = 4
    """Residual passes of an image."""


class ResidualEncoder(nn.Module):
    """One pass: the change of z, and the scores of the classes."""

    def __init__(
        self, shape: ImageShape, z_dim: int, config: EncoderConfig, *, infers_label: bool
    ) -> None:
        """infers_label: it finds the class of an image, from the image alone."""
        super().__init__()
        sides, maps = (shape.height, shape.width), 0
        while min(sides) > _LEAST_SIDE:
            sides = (sides[0] // 2, sides[1] // 2)
            maps += 1
        widths = [config.width * min(2**i, _MAX_MULTIPLE) for i in range(maps)]
        self.layers = nn.ModuleList(
            nn.Conv2d(narrow, wide, 4, stride=2, padding=1)
            for narrow, wide in itertools.pairwise([3 * shape.channels + 1, *widths])
        )
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, a=_SLOPE)  # type: ignore[arg-type]
        num_flat = widths[-1] * sides[0] * sides[1]
        self.flat = nn.Linear(num_flat, config.hidden)
        self.norm = nn.LayerNorm(config.hidden)
        self.label = nn.Embedding(shape.num_classes, _LABEL_DIM) if shape.num_classes else None
        in_dim = config.hidden + z_dim + (_LABEL_DIM if shape.num_classes else 0)
        self.middle = nn.Linear(in_dim, config.hidden)
        self.step = nn.Linear(config.hidden, z_dim)
        nn.init.zeros_(self.step.bias)
        self.classify = (
            nn.Linear(config.hidden, shape.num_classes)
            if infers_label and shape.num_classes
            else None
        )

    def maps(self, x: Tensor, made: Tensor, mask: Tensor) -> list[Tensor]:
        """The feature maps, finest first. x, made: [N, C, H, W] in [-1, 1]; mask: [N, 1, H, W]."""
        found = [torch.cat([x * mask, made, (x - made) * mask, mask], 1)]
        for layer in self.layers:
            found.append(functional.leaky_relu(layer(found[-1]), _SLOPE))
        return found[1:]

    def scores(self, x: Tensor, mask: Tensor) -> Tensor:
        """Scores of the classes, [N, classes]: from the image and nothing beside it."""
        return self._scores(self._hidden(x, torch.zeros_like(x), mask))

    def forward(
        self, x: Tensor, made: Tensor, mask: Tensor, z: Tensor, label: Tensor | None
    ) -> Tensor:
        """What to add to z [N, z_dim], of which `made` was made."""
        return self._change(self._hidden(x, made, mask), z, label)

    def step_and_scores(
        self, rows: tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None], x: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`forward` of some rows and `scores` of other images, with the maps of all at once.

        Each weight then gets its gradient once: the two of the widest layer cost as much to add up
        as a convolution.
        """
        own, made, known, z, label = rows
        hidden = self._hidden(
            torch.cat([own, x]), torch.cat([made, torch.zeros_like(x)]), torch.cat([known, mask])
        )
        return self._change(hidden[: len(own)], z, label), self._scores(hidden[len(own) :])

    def _hidden(self, x: Tensor, made: Tensor, mask: Tensor) -> Tensor:
        flat = self.norm(self.flat(self.maps(x, made, mask)[-1].flatten(1)))
        return functional.leaky_relu(flat, _SLOPE)

    def _change(self, hidden: Tensor, z: Tensor, label: Tensor | None) -> Tensor:
        parts = [hidden, z]
        if self.label is not None:
            parts.append(self.label(label))
        middle = functional.leaky_relu(self.middle(torch.cat(parts, 1)), _SLOPE)
        change: Tensor = self.step(middle)
        return change

    def _scores(self, hidden: Tensor) -> Tensor:
        assert self.classify is not None
        found: Tensor = self.classify(hidden)
        return found
