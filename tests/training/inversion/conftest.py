"""A small published model with an encoder that was hardly trained."""

from pathlib import Path

import pytest
import torch

from models.bundle import Bundle
from models.networks import DCGAN
from models.repository import Repository
from training.data import ImageSet
from training.export.exporter import export
from training.interpretation.part import DirectionsPart
from training.inversion.__main__ import main

NETWORK = {"family": "dcgan", "z_dim": 4, "ngf": 4, "ndf": 4, "embed_dim": 2}
TRAIN = (
    *("--real", "0", "--kimg", "0.04", "--batch-size", "8", "--passes", "1", "--width", "8"),
    *("--lr", "0.002"),
)


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The export of an untrained conditional network with loud weights, 16x16 grey."""
    torch.manual_seed(0)
    images = torch.randint(0, 255, (9, 1, 16, 16), dtype=torch.uint8)
    data = ImageSet("tiny", images, torch.arange(9) % 3, ("a", "b", "c"), "0" * 64, ())
    G = DCGAN(z_dim=4, ngf=4, ndf=4, embed_dim=2).generator(data.shape)
    with torch.no_grad():
        for parameter in G.parameters():
            parameter.mul_(3)
    return export(
        G_ema=G,
        z_dim=4,
        image_set=data,
        recipe="test",
        options={"network": NETWORK},
        metrics=None,
        name="tiny",
        destination=tmp_path_factory.mktemp("export") / "bundle",
        parts=[DirectionsPart(num=2, image_set=data, say=lambda _line: None)],
    )


@pytest.fixture(scope="session")
def repository(plain: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Version 1 without, version 2 with an encoder that infers classes."""
    folder = tmp_path_factory.mktemp("inversion")
    found = Repository(folder / "models")
    found.publish("tiny", plain)
    words = ["encoder", "tiny", "--repository", str(found.root), "--folder", str(folder / "work")]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert main([*words, *TRAIN]) == 0
    finally:
        torch.set_num_threads(threads)
    return found


@pytest.fixture
def model(repository: Repository) -> Bundle:
    """Version 2."""
    return repository.bundle("tiny")


@pytest.fixture
def at(repository: Repository, tmp_path: Path) -> list[str]:
    """Options: which repository, and a folder for what is written."""
    return ["--repository", str(repository.root), "--out", str(tmp_path / "out")]
