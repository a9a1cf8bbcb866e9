"""Sample grids: the same seeds at every tick, so that a person sees one latent's image grow up.

Tile i, counted along the rows, is seed i with label i modulo the number of classes, as in the
bundle's samples.png and on the wire.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from models.generator import Generate, Images, Sampler
from models.grid import grid, png
from training.graphs import to_bytes

NUM_COLUMNS = 10
NUM_TILES = 100


def save_grid(path: Path, generate: Generate, *, z_dim: int, num_classes: int) -> None:
    """Writes seeds 0 .. NUM_TILES - 1 as one PNG. num_classes: 0 for unconditional models."""
    sampler = Sampler(generate, z_dim=z_dim, num_classes=num_classes)
    images = sampler(np.arange(NUM_TILES, dtype=np.uint64))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(grid(images, NUM_COLUMNS)))


class TorchGenerator:
    """A torch generator behind the interface of the exported one; for looking, not for serving."""

    def __init__(self, G: nn.Module) -> None:
        """G: in evaluation mode."""
        self._G = G
        self._device = next(G.parameters()).device

    @torch.no_grad()
    def __call__(
        self,
        z: npt.NDArray[np.float32],
        label: npt.NDArray[np.int64] | None = None,
        psi: npt.NDArray[np.float32] | None = None,
    ) -> Images:
        """Implements `models.generator.Generate`, without truncation: psi is not looked at."""
        labels = None if label is None else torch.from_numpy(label).to(self._device)
        img = self._G(torch.from_numpy(z).to(self._device), labels)
        images: Images = to_bytes(img).cpu().numpy()
        return images
