"""Every format holds the images that the model makes, in the seeds' order, with their labels."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from models.bundle import Bundle
from models.bundle.generator import CpuGenerator, Images
from models.latents import latents
from serving.bulk.errors import PlanError
from serving.bulk.formats import FORMATS
from tests.serving.bulk.conftest import contents, make

SEEDS = [5, 6, 7, 8, 9, 10, 11, 2**64 - 1, 0]
OPTIONS = ("--seeds", f"5-11,{2**64 - 1},0", "--shard-images", "4", "--batch-rows", "3")
LABELS = [0, 2, 0, 2, 0, 2, 2, 2, 0]


def expected(bundle: Bundle, psi: float = 1.0) -> Images:
    z = latents(SEEDS, bundle.manifest.z_dim) * np.float32(psi)
    label = np.array(LABELS) if bundle.manifest.conditional else None
    return CpuGenerator(bundle.model_path)(z, label)


def pixels(data: bytes) -> Images:
    image = np.asarray(Image.open(io.BytesIO(data)))
    return image if image.ndim == 3 else image[:, :, None]


def read_folder(out: Path) -> tuple[list[int], list[int | None], list[bytes]]:
    lines = [
        json.loads(line)
        for index in sorted(out.glob("index/*.jsonl"))
        for line in index.read_text().splitlines()
    ]
    files = [(out / line["name"]).read_bytes() for line in lines]
    return [line["seed"] for line in lines], [line["label"] for line in lines], files


def read_tar(out: Path) -> tuple[list[int], list[int | None], list[bytes]]:
    seeds: list[int] = []
    labels: dict[int, int] = {}
    files = []
    for path in sorted(out.glob("data/*.tar")):
        with tarfile.open(path) as archive:
            for info in archive:
                key, end = info.name.split(".")
                data = archive.extractfile(info).read()  # type: ignore[union-attr]
                if end == "cls":
                    labels[int(key)] = int(data)
                else:
                    seeds.append(int(key))
                    files.append(data)
    return seeds, [labels.get(seed) for seed in seeds], files


def read_parquet(out: Path) -> tuple[list[int], list[int | None], list[bytes]]:
    rows = [
        row
        for path in sorted(out.glob("data/*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]
    return (
        [row["seed"] for row in rows],
        [row.get("label") for row in rows],
        [row["image"]["bytes"] for row in rows],
    )


READERS = {"folder": read_folder, "tar": read_tar, "parquet": read_parquet}


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("image", ["png", "webp"])
@pytest.mark.parametrize("conditional", [False, True])
def test_holds_what_the_model_makes(
    kind: str, image: str, conditional: bool, grey: Bundle, colour: Bundle, tmp_path: Path
) -> None:
    bundle = colour if conditional else grey
    labels = ("--labels", "0,2") if conditional else ()
    if conditional:
        path = tmp_path / "labels"
        path.write_text("\n".join(map(str, LABELS)))
        labels = ("--labels-from", str(path))
    out = tmp_path / "out"
    make(bundle, str(out), *OPTIONS, *labels, "--format", kind, "--image", image)
    seeds, found, files = READERS[kind](out)
    assert seeds == SEEDS
    assert found == (LABELS if conditional else [None] * len(SEEDS))
    images = np.stack([pixels(data) for data in files])
    if image == "webp" and not conditional:
        images = images[..., :1]  # WebP has no grey
    assert (images == expected(bundle)).all()


def test_arrays_hold_what_the_model_makes(colour: Bundle, tmp_path: Path) -> None:
    make(colour, str(tmp_path), *OPTIONS, "--labels", "0,2", "--format", "npy")
    arrays = {
        kind: np.concatenate([np.load(path) for path in sorted(tmp_path.glob(f"data/{pattern}"))])
        for kind, pattern in (
            ("images", "*[0-9].npy"),
            ("seeds", "*.seeds.npy"),
            ("labels", "*.labels.npy"),
        )
    }
    assert arrays["seeds"].tolist() == SEEDS
    assert arrays["labels"].tolist() == [(0, 2)[seed % 2] for seed in SEEDS]
    z = latents(SEEDS, colour.manifest.z_dim)
    images = CpuGenerator(colour.model_path)(z, arrays["labels"])
    assert (arrays["images"] == images).all()


def test_jpeg_is_near(colour: Bundle, tmp_path: Path) -> None:
    make(colour, str(tmp_path), *OPTIONS, "--labels", "1", "--format", "tar", "--image", "jpeg")
    _, _, files = read_tar(tmp_path)
    assert all(data.startswith(b"\xff\xd8") for data in files)


def test_truncation_scales_latents_as_the_server_does(grey: Bundle, tmp_path: Path) -> None:
    make(grey, str(tmp_path), *OPTIONS, "--truncation", "0.5", "--format", "npy")
    images = np.concatenate([np.load(p) for p in sorted(tmp_path.glob("data/*[0-9].npy"))])
    assert (images == expected(grey, 0.5)).all()


@pytest.mark.parametrize(
    ("image", "read"),
    [
        ("png", lambda image: image.text),
        ("jpeg", lambda image: json.loads(image.info["comment"])),
        ("webp", lambda image: json.loads(image.getexif()[0x010E])),
    ],
)
def test_an_image_of_a_folder_says_how_it_was_made(
    image: str, read: Callable[..., dict[str, str]], colour: Bundle, tmp_path: Path
) -> None:
    make(colour, str(tmp_path), *OPTIONS, "--labels", "2", "--image", image, "--truncation", "0.7")
    (path,) = tmp_path.glob(f"images/2-class-2/*/{2**64 - 1}.*")
    with Image.open(path) as opened:
        opened.load()
        assert read(opened) == {
            "seed": str(2**64 - 1),
            "label": "2",
            "model": "tiny",
            "version": "1",
            "digest": colour.digest,
            "truncation": "0.7",
        }


@pytest.mark.parametrize("kind", FORMATS)
def test_bytes_don_t_depend_on_when_and_where(kind: str, grey: Bundle, tmp_path: Path) -> None:
    for name in ("a", "b"):
        make(grey, str(tmp_path / name), *OPTIONS, "--format", kind)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_one_shard_or_many_hold_the_same_images(grey: Bundle, tmp_path: Path) -> None:
    """A row's bytes depend on its seed, whatever batch it is in."""
    make(grey, str(tmp_path / "a"), *OPTIONS, "--format", "tar")
    one = ("--seeds", f"5-11,{2**64 - 1},0", "--batch-rows", "64", "--format", "tar")
    make(grey, str(tmp_path / "b"), *one)
    assert read_tar(tmp_path / "a") == read_tar(tmp_path / "b")


@pytest.mark.parametrize("image", ["png", "webp"])
def test_transparent_images_that_are_no_squares(
    image: str, make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    bundle = make_bundle(size=(6, 10), channels=4)
    make(bundle, str(tmp_path), *OPTIONS, "--image", image)
    _, _, files = read_folder(tmp_path)
    assert (np.stack([pixels(data) for data in files]) == expected(bundle)).all()
    with pytest.raises(PlanError, match=r"holds no transparency.*choose one of png, webp"):
        make(bundle, str(tmp_path / "jpeg"), *OPTIONS, "--image", "jpeg")
