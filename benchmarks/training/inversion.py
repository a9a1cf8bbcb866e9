"""Self-inversion and real images: how close encoder and projection come, and how long they take.

    python -m training.run digits && python -m training.inversion encoder digits
    python benchmarks/training/inversion.py [NAME] [--repository DIR] [--quick]

Prints `figure NAME VALUE UNIT`. A hundred seeds of the model are encoded and projected again
(--quick: 10, with 50 steps), and the images that the encoder's training kept apart. --mnist DIR: a
thousand of MNIST's test images as well, of a model of MNIST.
"""

import time
from pathlib import Path

import numpy as np
from _rounds import figure, parser

from models.repository.lookup import open_named
from training.data import DataConfig, load
from training.export.onnx_graphs import to_bytes
from training.inversion.figures import own_images
from training.inversion.opened import Opened, as_bytes, psnr
from training.inversion.projection import ProjectionConfig
from training.inversion.restore import restore

RESTARTS = 4
TIMED = 50


def unseen(model: Opened, folder: Path) -> None:
    """Every tenth of MNIST's test images, which nothing was trained on, by the encoder."""
    shape = model.shape
    data = DataConfig(
        dataset="mnist",
        path=folder,
        split="test",
        resolution=f"{shape.width}x{shape.height}",
        conditional=bool(shape.num_classes),
    )
    image_set = load(data)
    images = as_bytes(image_set)[::10]
    label = None if image_set.labels is None else image_set.labels.numpy()[::10]
    given = label if model.traits.needs_label else None
    encoded = model.encode(images, given)
    found = psnr(images, model.make(encoded.z, model.label_of(encoded, given)))
    figure("MNIST's test images, encoder, 95 of 100 reach", float(np.percentile(found, 5)), "dB")
    figure("MNIST's test images, encoder, median", float(np.median(found)), "dB")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("name", nargs="?", default="digits")
    options.add_argument("--repository", type=Path, default=Path("model-repository"))
    options.add_argument("--mnist", type=Path, help="folder of MNIST's files: its test images, too")
    asked = options.parse_args()
    model = Opened(open_named(asked.name, asked.repository))
    images, label = own_images(model)
    if asked.quick:
        images, label = images[:10], None if label is None else label[:10]
    given = label if model.traits.needs_label else None

    encoded = model.encode(images, given)
    by_encoder = psnr(images, model.make(encoded.z, model.label_of(encoded, given)))
    figure("self-inversion, encoder, 95 of 100 reach", float(np.percentile(by_encoder, 5)), "dB")
    figure("self-inversion, encoder, median", float(np.median(by_encoder)), "dB")
    one = images[:1]
    alone = None if given is None else given[:1]
    began = time.perf_counter()
    for _ in range(TIMED):
        model.encode(one, alone)
    figure("encode one image", (time.perf_counter() - began) / TIMED * 1000, "ms")

    if asked.mnist is not None:
        unseen(model, asked.mnist)

    config = ProjectionConfig(steps=50 if asked.quick else 200)
    began = time.perf_counter()
    found = restore(model, images, label=given, answers=RESTARTS, config=config)
    spent = time.perf_counter() - began
    projected = psnr(images, to_bytes(found.found.best().made[:, 0]).numpy())
    figure("self-inversion, projected, 95 of 100 reach", float(np.percentile(projected, 5)), "dB")
    figure("self-inversion, projected, median", float(np.median(projected)), "dB")
    figure("project one image", spent / len(images), "s")
    for metric in model.bundle.manifest.metrics:
        if "encoder" in metric.name:
            figure(metric.name, metric.value, "")


if __name__ == "__main__":
    main()
