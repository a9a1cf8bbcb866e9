"""What others read it with: WebDataset, datasets, ImageFolder, and our own training."""

from pathlib import Path

import numpy as np
import pytest

from models.bundle import Bundle
from models.bundle.generator import CpuGenerator, Images
from models.latents import latents
from tests.serving.bulk.conftest import make

NUM = 60
OPTIONS = ("--count", str(NUM), "--shard-images", "25")


@pytest.fixture(scope="module")
def expected(colour: Bundle) -> tuple[Images, list[int]]:
    labels = np.arange(NUM) % 3
    z = latents(range(NUM), colour.manifest.z_dim)
    return CpuGenerator(colour.model_path)(z, labels), labels.tolist()


# Other people's readers leave files to the garbage collector.
careless = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@careless
def test_webdataset(colour: Bundle, expected: tuple[Images, list[int]], tmp_path: Path) -> None:
    import webdataset as wds

    make(colour, str(tmp_path), *OPTIONS, "--format", "tar")
    paths = sorted(map(str, tmp_path.glob("data/*.tar")))
    stem = paths[0].removesuffix("00000.tar")
    dataset = wds.WebDataset(stem + "{00000..00002}.tar", shardshuffle=False, empty_check=False)
    rows = list(dataset.decode("rgb8").to_tuple("png", "cls", "__key__"))
    images, labels = expected
    assert (np.stack([row[0] for row in rows]) == images).all()
    assert [row[1] for row in rows] == labels
    assert [int(row[2]) for row in rows] == list(range(NUM))


@careless
def test_datasets(
    colour: Bundle,
    expected: tuple[Images, list[int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    import datasets

    out = tmp_path / "out"
    make(colour, str(out), *OPTIONS, "--format", "parquet")
    data = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    images, labels = expected
    assert data["label"][:] == labels
    assert data["seed"][:] == list(range(NUM))
    assert data.features["label"].names == ["class 0", "class 1", "class 2"]
    assert (np.stack([np.asarray(row["image"]) for row in data]) == images).all()


@careless
def test_image_folder(colour: Bundle, expected: tuple[Images, list[int]], tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    make(colour, str(tmp_path), *OPTIONS)
    data = ImageFolder(str(tmp_path / "images"))
    assert data.classes == ["0-class-0", "1-class-1", "2-class-2"]
    images, labels = expected
    assert len(data) == NUM
    for (path, label), (image, _) in zip(data.samples, data, strict=True):
        seed = int(Path(path).stem)
        assert label == labels[seed]
        assert (np.asarray(image) == images[seed]).all()


def test_our_own_training_reads_the_folder_without_a_complaint(
    colour: Bundle, expected: tuple[Images, list[int]], tmp_path: Path
) -> None:
    from training.data import DataConfig, load

    make(colour, str(tmp_path / "out"), *OPTIONS)
    config = DataConfig(
        dataset="folder", path=tmp_path / "out" / "images", resolution=16, channels=3
    )
    image_set = load(config)
    assert image_set.skipped == ()
    assert len(image_set.images) == NUM
    assert image_set.label_names == ("0-class-0", "1-class-1", "2-class-2")


def test_our_own_training_trains_on_the_folder(colour: Bundle, tmp_path: Path) -> None:
    from training.run import main

    make(colour, str(tmp_path / "out"), *OPTIONS)
    words = ["folder", "--data.path", str(tmp_path / "out" / "images"), "--data.resolution", "16"]
    small = ["--network.ngf", "4", "--network.ndf", "4", "--total-kimg", "0.064"]
    places = ["--runs", str(tmp_path / "runs"), "--repository", str(tmp_path / "models")]
    assert main([*words, *small, *places, "--batch-size", "16"]) == 0
    assert (tmp_path / "models").is_dir()
