"""A small model of one class with an encoder and a calibration, on images in MNIST's form."""

from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
import torch

from models.networks import DCGAN
from models.repository import Repository
from tests.training.data.sources.test_sources import idx
from training.data import DataConfig, load
from training.export.exporter import export
from training.inversion.__main__ import main

NETWORK = {"family": "dcgan", "z_dim": 4, "ngf": 4, "ndf": 4, "embed_dim": 2}
DATA = {"dataset": "mnist", "only": "0", "held_out": 0.4, "conditional": False, "split": "auto"}
TRAIN = (
    *("--real", "0", "--kimg", "0.04", "--batch-size", "8", "--passes", "1", "--width", "8"),
    *("--lr", "0.002"),
)


def write_images(folder: Path, part: str, labels: list[int], seed: int) -> None:
    """Noise that is bright on the left (0) or on the right (1), 28x28."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 90, (len(labels), 28, 28), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, 14 * label : 14 * label + 14] += 150
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
    (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.array(labels, np.uint8)))


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/ and the model `usual`: version 1 plain, 2 encoded, 3 calibrated."""
    folder = tmp_path_factory.mktemp("anomaly")
    raw = folder / "data" / "MNIST" / "raw"
    write_images(raw, "train", [0, 1] * 60, 1)
    write_images(raw, "t10k", [0, 1, 1] * 20, 2)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with chdir(folder):
        torch.manual_seed(0)
        config = DataConfig(
            dataset="mnist", resolution=8, only="0", held_out=0.4, conditional=False
        )
        image_set = load(config)
        G = DCGAN(z_dim=4, ngf=4, ndf=4, embed_dim=2).generator(image_set.shape)
        bundle = export(
            G_ema=G,
            z_dim=4,
            image_set=image_set,
            recipe="test",
            options={"network": NETWORK, "data": DATA},
            metrics=None,
            name="usual",
            destination=folder / "bundle",
        )
        Repository(folder / "model-repository").publish("usual", bundle)
        assert main(["encoder", "usual", *TRAIN]) == 0
        assert main(["calibrate", "usual"]) == 0
    torch.set_num_threads(threads)
    return folder


@pytest.fixture
def here(place: Path) -> Iterator[Path]:
    """The same folder as the working directory."""
    with chdir(place):
        yield place
