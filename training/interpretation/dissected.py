"""A generator whose units are looked at: its images, whole or with some units off."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.bundle.generator import Images
from models.latents import latents
from training.export.onnx_graphs import to_bytes
from training.interpretation.concepts import Concept
from training.interpretation.unit_layers import Layer, masked, num_units

BATCH = 32
_FIRST_SEED = 2**33


@dataclass(frozen=True, kw_only=True)
class Dissected:
    """A generator whose units are looked at."""

    G: nn.Module
    """In evaluation mode, on the CPU."""
    z_dim: int
    num_classes: int
    classes: Mapping[str, Concept]
    masks: Mapping[str, npt.NDArray[np.bool_]]
    """Concepts that the user gives: where each is, [N, H, W], on the images of `seeds`."""
    seeds: npt.NDArray[np.uint64] | None = None

    def inputs(self, seeds: npt.NDArray[np.uint64]) -> tuple[Tensor, Tensor | None]:
        """Latents and labels of seeds; a seed's label is seed % num_classes."""
        some = next(self.G.parameters())
        z = torch.from_numpy(latents(seeds, self.z_dim)).to(some.dtype)
        if not self.num_classes:
            return z, None
        return z, torch.from_numpy((seeds % np.uint64(self.num_classes)).astype(np.int64))


def seeds_of(start: int, num: int) -> npt.NDArray[np.uint64]:
    """Seeds that no training and no page shows; others from another start."""
    return np.arange(_FIRST_SEED + start, _FIRST_SEED + start + num, dtype=np.uint64)


@torch.no_grad()
def ablated(
    subject: Dissected, layers: list[Layer], seeds: npt.NDArray[np.uint64], units: Sequence[int]
) -> Images:
    """The images of seeds with some units off."""
    modules, images = dict(subject.G.named_modules()), []
    for start in range(0, len(seeds), BATCH):
        z, label = subject.inputs(seeds[start : start + BATCH])
        mask = torch.ones(len(z), num_units(layers))
        mask[:, list(units)] = 0
        with masked(modules, layers, mask):
            images.append(to_bytes(subject.G(z, label)))
    found: Images = torch.cat(images).numpy()
    return found
