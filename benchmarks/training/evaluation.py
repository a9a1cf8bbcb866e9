"""Seconds and peak memory of an evaluation: 10,000 images of 32x32, each measure, each features.

Every line is a process of its own, so that its peak memory is its own. The generator is a DCGAN of
random weights and the data is noise of ten classes: what is in a pixel changes no time, and a file
of real weights is not needed (Inception's are drawn, 95 MB of them).

    load    making the data, without a measure
    MEASURE that measure with `random` features: generating, features, and the measure thrice
    FEATURES every measure that fits, with these features

Run: python benchmarks/training/evaluation.py [--quick] [--inception]
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from models.networks import DCGAN, ImageShape
from training.data import ImageSet
from training.evaluation import Plan, evaluate
from training.evaluation.measures import MEASURES
from training.export.onnx_graphs import UInt8Generator, to_onnx

RESOLUTION = 32
NUM_CLASSES = 10


def write_model(path: Path) -> None:
    """A conditional DCGAN of the recipe digits' size."""
    family = DCGAN(z_dim=64, ngf=16, ndf=16, embed_dim=16)
    shape = ImageShape(resolution=RESOLUTION, channels=1, num_classes=NUM_CLASSES)
    torch.manual_seed(0)
    G = UInt8Generator(family.generator(shape)).eval().requires_grad_(False)
    path.write_bytes(to_onnx(G, family.z_dim, conditional=True))


def write_inception(path: Path) -> None:
    """Weights of the published form, drawn."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Untrained(FeatureExtractorInceptionV3):
        def load_state_dict(self, *_args, **_options):  # type: ignore[no-untyped-def]
            for module in self.modules():
                if hasattr(module, "reset_parameters"):
                    module.reset_parameters()

    torch.save({}, path)
    torch.save(Untrained("inception", ["2048"], str(path)).state_dict(), path)


def data(num_images: int) -> ImageSet:
    """Twice as many as are compared: a half for the floor."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(
        rng.integers(256, size=(2 * num_images, 1, RESOLUTION, RESOLUTION), dtype=np.uint8)
    )
    labels = torch.arange(2 * num_images) % NUM_CLASSES
    images[:, :, 0, :] = (labels * 25).to(torch.uint8)[:, None, None]
    names = tuple(str(i) for i in range(NUM_CLASSES))
    return ImageSet("noise", images, labels, names, "none", ())


def measure(folder: Path, what: str, num_images: int) -> None:
    """One line; run in a process of its own."""
    start = time.perf_counter()
    image_set = data(num_images)
    weights = folder / "inception.pth" if what == "inception" else None
    if what in MEASURES:
        figures = tuple(MEASURES[what].figures)
        plan = Plan(features="random", figures=figures, num_images=num_images)
    else:
        plan = Plan(features=what, num_images=num_images, weights=weights)
    if what != "load":
        evaluate(folder / "model.onnx", 64, image_set, plan)
    taken_s = time.perf_counter() - start
    status = Path("/proc/self/status").read_text()  # getrusage would tell the parent's, if higher
    peak_mib = int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024
    print(f"figure evaluation_{what}_s {taken_s:.1f} s")
    print(f"figure evaluation_{what}_peak {peak_mib:.0f} MiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="1,000 images")
    parser.add_argument("--inception", action="store_true", help="Inception too: an hour on a CPU")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    num_images = 1000 if arguments.quick else 10_000
    if arguments.only:
        measure(arguments.folder, arguments.only, num_images)
        return
    subjects = ["load", *MEASURES, "random", "classifier"]
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder, "model.onnx"))
        if arguments.inception:
            write_inception(Path(folder, "inception.pth"))
            subjects.append("inception")
        for subject in subjects:
            command = [sys.executable, __file__, "--only", subject, "--folder", folder]
            subprocess.run([*command, *(["--quick"] if arguments.quick else [])], check=True)


if __name__ == "__main__":
    main()
