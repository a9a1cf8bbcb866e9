"""How good a generator is, measured on the exported ONNX file: on what will be served."""

from pathlib import Path

from models.generator import CpuGenerator, Sampler
from models.manifest import Metric
from training.data import ImageSet
from training.evaluation.label_agreement import label_agreement


def evaluate(model_path: Path, z_dim: int, image_set: ImageSet) -> tuple[Metric, ...]:
    """Every figure that fits this data.

    Args:
        model_path: the exported model.onnx.
        z_dim: width of its latent.
        image_set: the data it was trained on.

    Returns:
        The metrics; none for unconditional data.
    """
    num_classes = image_set.shape.num_classes
    if not num_classes:
        return ()
    sampler = Sampler(CpuGenerator(model_path), z_dim=z_dim, num_classes=num_classes)
    metric = label_agreement(sampler, image_set)
    return () if metric is None else (metric,)
