"""Sample grids: images of the same seeds at every tick, so that their progress can be watched.

Tile i, counted along the rows, is seed i with label i modulo the number of classes. The bundle's
samples.png and the server use the same latents.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from models.bundle.generator import Generate, Sampler
from models.grid import grid, png, sample_layout
from models.networks import ImageShape
from training.evaluation.metrics.modes import NUM_SAMPLES, Mixture
from training.evaluation.scatter import scatter
from training.runs.disk.records import RunFiles


@dataclass(frozen=True, kw_only=True)
class SampleGrid:
    """Writes the grids of one run."""

    folder: Path
    """Folder of the grids; made when the first one is written."""
    z_dim: int
    shape: ImageShape
    """Of the images."""
    mixture: Mixture | None = None
    """Where the images are points of the plane."""
    files: RunFiles = field(default_factory=RunFiles)
    """Writes the grids, later where the disk is full."""

    def sampler(self, generate: Generate) -> Sampler:
        """The images of this run's seeds and labels."""
        return Sampler(generate, z_dim=self.z_dim, num_classes=self.shape.num_classes)

    def save(self, name: str, generate: Generate) -> Image.Image:
        """Writes the images of seeds 0 .. 99, or of fewer large ones, as one PNG file.

        Of points of the plane it writes 2,500 where they lie.

        Returns:
            The picture.
        """
        columns, rows = sample_layout(self.shape.height, self.shape.width)
        num = columns * rows if self.mixture is None else NUM_SAMPLES
        images = self.sampler(generate)(np.arange(num, dtype=np.uint64))
        if self.mixture is None:
            picture = grid(images, columns)
        else:
            picture = scatter(self.mixture.coordinates(images), self.mixture)
        self.keep(name, picture)
        return picture

    def keep(self, name: str, picture: Image.Image) -> None:
        """Writes another picture beside the grids."""
        self.files.write(self.folder / name, png(picture))
