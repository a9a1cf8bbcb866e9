"""How good generated digits are: the measures that benchmarks on digits share."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import nn

from models.bundle.generator import Sampler
from models.grid import grid, png
from training.config.training import TrainingConfig
from training.data import ImageSet, load
from training.evaluation.evaluator import evaluate_sampler
from training.evaluation.plan import Plan
from training.export.onnx_graphs import UInt8Generator
from training.export.torch_generator import TorchGenerator

NUM_IMAGES = 800
FIGURES = ("frechet_distance", "coverage", "modes")


class DigitsEye:
    """The digits of a training, and how good a generator of them is."""

    def __init__(self, config: TrainingConfig, cache: Path) -> None:
        """cache: where the classifier is kept whose features are compared."""
        self.images: ImageSet = load(config.data)
        self._z_dim = config.network.z_dim
        self._labelled = self.images
        if not config.data.conditional:
            self._labelled = load(replace(config.data, conditional=True))
        self._plan = Plan(
            features="classifier",
            cache=cache,
            figures=FIGURES,
            num_images=NUM_IMAGES,
            num_resamples=0,
        )

    def look(self, G_ema: nn.Module) -> dict[str, float]:
        """Measures a generator: figures by name, their floors and ceilings beside them."""
        num_classes = self.images.shape.num_classes
        found = evaluate_sampler(
            self._sampler(G_ema), self._labelled, self._plan, num_classes=num_classes
        )
        figures = {metric.name: metric.value for metric in found}
        for metric in found:
            figures[f"floor_{metric.name}"] = metric.protocol["floor"]
            figures[f"ceiling_{metric.name}"] = metric.protocol["ceiling"]
        return figures

    def picture(self, G_ema: nn.Module, path: Path) -> None:
        """Writes a row of 20 images."""
        images = self._sampler(G_ema)(np.arange(20, dtype=np.uint64))
        path.write_bytes(png(grid(images, 20)))

    def _sampler(self, G_ema: nn.Module) -> Sampler:
        generate = TorchGenerator(UInt8Generator(G_ema))
        return Sampler(generate, z_dim=self._z_dim, num_classes=self.images.shape.num_classes)
