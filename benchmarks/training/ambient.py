"""What the measurement operator buys: generators of clean digits from corrupted ones.

scikit-learn's digits at 16x16 are corrupted once (half of the pixels black; noise of half the
range; a blur of one pixel), written as a folder and trained on twice by the same small DCGAN at the
same budget: as they are, and with `--corruption`. Both generators are held against the clean
digits, which neither saw:

    distance     from 1,000 images to the nearest clean digit, mean L2 norm, pixels in 0 .. 1
    agreement    share that an SVM trained on clean digits takes for the label that was asked for

Beside them: the same figures of the corrupted data, of clean digits held out of the pool (the
floor), and of uniform noise (the ceiling of the distance).

Run: python benchmarks/training/ambient.py [--quick]
"""

import argparse
import contextlib
import io
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from sklearn.svm import SVC
from torch import Tensor

from models.bundle.generator import CpuGenerator, Sampler
from models.repository import Repository
from training.data import DataConfig, load
from training.evaluation.features.svm import features
from training.run import main as train
from training.transforms.corruption import Corruption, measure

CORRUPTIONS = ("mask=0.5", "noise=1", "blur=1")
NUM_IMAGES = 1000
OPTIONS = (
    "--data.conditional --data.resolution 16 --data.channels 1 --network.ngf 16 --network.ndf 16 "
    "--network.z-dim 32 --batch-size 32 --ema-kimg 2 --optim-G.lr 1e-3 --optim-D.lr 1e-3 "
    "--regularizers r1=0.3 r2=0.3"
)


@dataclass(frozen=True)
class Judge:
    """Clean digits, to hold others against."""

    classifier: SVC
    pool: Tensor

    @classmethod
    def of(cls, images: Tensor, labels: npt.NDArray[np.int64]) -> "Judge":
        """images: [N, 1, H, W] uint8."""
        classifier = SVC(C=10.0, gamma="scale").fit(features(images), labels)
        return cls(classifier, images.flatten(1).float() / 255)

    def distance(self, images: Tensor) -> float:
        """To the nearest clean digit, on average."""
        return float(torch.cdist(images.flatten(1).float() / 255, self.pool).amin(1).mean())

    def agreement(self, images: Tensor, labels: npt.NDArray[np.int64]) -> float:
        return float((self.classifier.predict(features(images)) == labels).mean())


def corrupted(images: Tensor, corruption: Corruption) -> Tensor:
    """[N, 1, H, W] uint8, each image corrupted once and for all."""
    out = measure(images.float() / 127.5 - 1, (corruption,), 5)
    return ((out + 1) * 127.5).round().to(torch.uint8)


def write(folder: Path, images: Tensor, labels: npt.NDArray[np.int64]) -> None:
    for i, (image, label) in enumerate(zip(images[:, 0].numpy(), labels, strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / str(label) / f"{i:04}.png")


def generated(
    folder: Path, data: Path, *, kimg: float, seed: int, options: tuple[str, ...]
) -> tuple[Tensor, npt.NDArray[np.int64]]:
    """1,000 images [N, 1, H, W] uint8 of a generator trained on data, and what was asked for."""
    places = ["--runs", str(folder / "runs"), "--repository", str(folder / "models")]
    places += ["--evaluation", "none", "--name", "folder"]
    length = ["--total-kimg", str(kimg), "--tick-kimg", str(kimg), "--seed", str(seed)]
    words = ["folder", "--data.path", str(data), *OPTIONS.split(), *length, *places, *options]
    with contextlib.redirect_stdout(io.StringIO()):
        code = train(words)
    if code:
        raise SystemExit(code)
    bundle = Repository(folder / "models").bundle("folder")
    sampler = Sampler(CpuGenerator(bundle.model_path), z_dim=32, num_classes=10)
    seeds = np.arange(NUM_IMAGES, dtype=np.uint64)
    return torch.from_numpy(sampler(seeds)).permute(0, 3, 1, 2), sampler.labels(seeds)


def report(name: str, distances: list[float], agreements: list[float]) -> None:
    each = f"of {len(distances)} seeds" if len(distances) > 1 else "one seed"
    print(f"figure ambient_{name}_distance {statistics.median(distances):.2f} L2, median {each}")
    print(f"figure ambient_{name}_agreement {statistics.median(agreements):.3f} median {each}")


def compare(
    judge: Judge,
    data: Path,
    text: str,
    *,
    kimg: float,
    seeds: range,
) -> None:
    """Trains on the folder without and with the operator."""
    name = text.split("=")[0]
    for kind, options in (("without", ()), ("with", ("--corruption", text))):
        distances, agreements = [], []
        for seed in seeds:
            with tempfile.TemporaryDirectory() as folder:
                images, labels = generated(
                    Path(folder), data, kimg=kimg, seed=seed, options=options
                )
            distances.append(judge.distance(images))
            agreements.append(judge.agreement(images, labels))
            print(
                f"{text} {kind} operator, seed {seed}: distance {distances[-1]:.2f}, "
                f"agreement {agreements[-1]:.3f}",
                flush=True,
            )
        report(f"{name}_{kind}", distances, agreements)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one corruption, one seed, 10 kimg")
    quick = parser.parse_args().quick
    kimg, seeds = (10.0, range(1)) if quick else (60.0, range(3))
    image_set = load(DataConfig(resolution=16))
    assert image_set.labels is not None
    labels = image_set.labels.numpy()
    order = np.random.default_rng(0).permutation(len(image_set))
    held_out, rest = order[:300], order[300:]
    half = Judge.of(image_set.images[rest], labels[rest])
    images = image_set.images[held_out]
    report("floor", [half.distance(images)], [half.agreement(images, labels[held_out])])
    judge = Judge.of(image_set.images, labels)
    noise = torch.randint(0, 256, images.shape, generator=torch.Generator().manual_seed(0))
    report("ceiling", [judge.distance(noise)], [judge.agreement(noise, labels[held_out])])
    for text in CORRUPTIONS[:1] if quick else CORRUPTIONS:
        damaged = corrupted(image_set.images, Corruption.parse(text))
        name = text.split("=")[0]
        report(f"{name}_data", [judge.distance(damaged)], [judge.agreement(damaged, labels)])
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), damaged, labels)
            compare(judge, Path(folder), text, kimg=kimg, seeds=seeds)


if __name__ == "__main__":
    main()
