"""How well an encoder finds the way back, measured on the exported graphs."""

import numpy as np

from models.bundle.generator import Images
from models.bundle.manifest import Metric
from models.latents import latents
from training.inversion.opened import Labels, Opened, psnr

OWN = "encoder PSNR of its own images (dB that 95 of 100 reach)"
REAL = "encoder PSNR of real images (dB, median)"
CLASSES = "encoder accuracy of classes"
_SEEDS = np.arange(2**34, 2**34 + 100, dtype=np.uint64)


def own_images(model: Opened) -> tuple[Images, Labels | None]:
    """A hundred images of the model, of seeds that nothing else uses, and their classes."""
    manifest = model.bundle.manifest
    classes = len(manifest.labels or ())
    label = (_SEEDS % np.uint64(classes)).astype(np.int64) if classes else None
    return model.make(latents(_SEEDS, manifest.z_dim), label), label


def figures(model: Opened, real: Images | None, real_labels: Labels | None) -> tuple[Metric, ...]:
    """PSNR of the model's own images and of real ones, by the encoder alone.

    Args:
        model: with its encoder.
        real: images that the encoder didn't see, [N, H, W, C]; None for none.
        real_labels: [N], of conditional models.
    """
    images, label = own_images(model)
    protocol = {"n": len(images), "seeds": f"{_SEEDS[0]} .. {_SEEDS[-1]}"}
    values, right = _by_encoder(model, images, label)
    found = [Metric(name=OWN, value=float(np.percentile(values, 5)), protocol=protocol)]
    if real is not None and len(real):
        values, right = _by_encoder(model, real, real_labels)
        protocol = {"n": len(real), "images": "of the data, not seen by the encoder"}
        found.append(Metric(name=REAL, value=float(np.median(values)), protocol=protocol))
    if right is not None:
        found.append(Metric(name=CLASSES, value=right, protocol=protocol))
    return tuple(found)


def _by_encoder(
    model: Opened, images: Images, label: Labels | None
) -> tuple[np.ndarray, float | None]:
    encoded = model.encode(images, label if model.traits.needs_label else None)
    used = label if encoded.labels is None else encoded.labels
    values = psnr(images, model.make(encoded.z, used))
    if encoded.labels is None or label is None:
        return values, None
    return values, float(np.mean(encoded.labels == label))
