"""The trainings of the anomaly benchmark: what one is, and playing it by the commands of users."""

import contextlib
import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from _log import Record, key_of
from PIL import Image

from training.evaluate import main as evaluate
from training.inversion.__main__ import main as invert
from training.run import main as train

_TEST_EVERY = 3  # of the digits, after a draw


@dataclass(frozen=True, kw_only=True)
class Job:
    """One class that is usual, one seed, and how long its networks are trained."""

    dataset: str
    normal: str
    seed: int
    resolution: int
    held_out: float
    """Share of the training images that is kept for calibration."""
    calibration: int
    """Images to calibrate with, at most."""
    kimg: float
    """Of the generator, thousands of images."""
    encoder_kimg: float
    width: int
    """Of the encoder."""

    @property
    def key(self) -> str:
        return key_of(asdict(self))


def play(job: Job, data: Path, work: Path) -> Record:
    """Trains, finds the encoder, calibrates, and judges on the test part, each once.

    Args:
        job: what to play.
        data: folder of MNIST's files; not used for digits.
        work: folder that is made anew, and removed at the end.
    """
    torch.set_num_threads(1)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    if job.dataset == "digits":
        data = work / "images"
        write_digits(data)
    source = ["--data.dataset", "folder" if job.dataset == "digits" else job.dataset]
    source += ["--data.path", str(data)]
    models = ["--repository", str(work / "models")]
    places = [*models, "--runs", str(work / "runs")]
    seed = ["--seed", str(job.seed)]
    report = work / "report.json"
    began = time.process_time()
    with (work / "log.txt").open("w") as log:
        for main, words in (
            (
                train,
                [
                    *("anomaly", "--data.only", job.normal, *source, *seed, *places),
                    *("--data.resolution", str(job.resolution), "--name", "usual"),
                    *("--data.held-out", str(job.held_out), "--total-kimg", str(job.kimg)),
                    *("--evaluation", "none", "--evaluate-kimg", "0", "--directions", "0"),
                    *("--track", "--device", "cpu"),
                ],
            ),
            (
                invert,
                [
                    *("encoder", "usual", *source, *seed, *places),
                    *("--kimg", str(job.encoder_kimg), "--width", str(job.width), "--lr", "0.001"),
                    *("--folder", str(work / "encoder")),
                ],
            ),
            (
                invert,
                ["calibrate", "usual", *source, *places, "--num-images", str(job.calibration)],
            ),
            (
                evaluate,
                [
                    *("anomaly", "usual", *source, *seed, *places, "--data.split", "test"),
                    *("--trained-on", str(data), "--json", "--report", str(report)),
                ],
            ),
        ):
            with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
                code = main(words)
            if code:
                raise SystemExit(f"{job}: exit code {code}; see {work / 'log.txt'}")
    found = json.loads(report.read_text())
    shutil.rmtree(work)
    return {
        "job": asdict(job),
        "images": found["images"],
        "num_parameters": found["num_parameters"],
        "expected_false_alarms": round(found["expected_false_alarms"], 4),
        "methods": {name: _rounded(each) for name, each in found["methods"].items()},
        "cpu_s": round(time.process_time() - began, 1),
    }


def _rounded(figures: Record) -> Record:
    """The values of a method's figures, without its intervals."""
    names = ("auroc", "average_precision", "false_alarms", "found")
    return {name: round(figures[name]["value"], 4) for name in names}


def write_digits(folder: Path) -> None:
    """scikit-learn's digits as train/CLASS/N.png and test/CLASS/N.png, a third of each to test.

    The draw is fixed, and the same for all classes and seeds.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    rng = np.random.default_rng(0)
    for label in range(10):
        numbers = rng.permutation(np.flatnonzero(digits.target == label))
        for place, number in enumerate(numbers):
            part = "train" if place % _TEST_EVERY else "test"
            path = folder / part / str(label) / f"{number:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[number]).save(path)
