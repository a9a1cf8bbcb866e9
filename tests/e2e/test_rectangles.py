"""Images that aren't square: every route and format gives height and width in the right order."""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageSequence

from models.bundle import Bundle
from models.bundle.generator import CpuGenerator
from models.latents import latents
from models.repository import Repository
from training.evaluate import main as measure
from training.run import main as train

HEIGHT, WIDTH, SEEDS = 6, 10, [3, 1, 4]

Pixels = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def bundle(make_bundle: Callable[..., Bundle]) -> Bundle:
    return make_bundle(size=(HEIGHT, WIDTH), channels=3)


@pytest.fixture(scope="module")
def expected(bundle: Bundle) -> Pixels:
    images = CpuGenerator(bundle.model_path)(latents(np.array(SEEDS, np.uint64), 6))
    assert images.shape == (3, HEIGHT, WIDTH, 3)
    return images


@pytest.fixture
def server(bundle: Bundle, tmp_path: Path, start_server: Callable[..., Any]) -> Any:
    Repository(tmp_path / "models").publish("wide", bundle)
    return start_server(tmp_path / "models")


def test_every_route_and_format(server: Any, expected: Pixels) -> None:
    image = server.get("/v1/models/wide").json()["image"]
    assert (image["height"], image["width"]) == (HEIGHT, WIDTH)
    for kind in ("png", "jpeg", "webp"):
        made = server.generate(seeds=SEEDS, format=kind).json()["images"]
        for each, one in zip(made, expected, strict=True):
            picture = Image.open(io.BytesIO(base64.b64decode(_data(each))))
            assert picture.size == (WIDTH, HEIGHT)
            assert kind != "png" or np.array_equal(np.asarray(picture), one)
    array = np.load(io.BytesIO(server.generate(seeds=SEEDS, format="npy").content))
    assert np.array_equal(array, expected)
    sheet = Image.open(io.BytesIO(server.generate(seeds=SEEDS, layout="grid").content))
    assert sheet.size == (2 * WIDTH, 2 * HEIGHT)
    assert np.array_equal(np.asarray(sheet)[HEIGHT:, :WIDTH], expected[2])
    for suffix in ("png", "jpg", "webp"):
        got = server.get(f"/v1/models/wide/images/{SEEDS[0]}.{suffix}")
        assert Image.open(io.BytesIO(got.content)).size == (WIDTH, HEIGHT)
    one = Image.open(io.BytesIO(server.get(f"/v1/models/wide/images/{SEEDS[0]}.png").content))
    assert np.array_equal(np.asarray(one), expected[0])
    walk = {"seeds": SEEDS[:2], "frames": 3}
    for form in ("webp", "gif"):
        film = Image.open(
            io.BytesIO(server.post("/v1/interpolate", json=walk | {"format": form}).content)
        )
        assert film.size == (WIDTH, HEIGHT)
        assert sum(1 for _ in ImageSequence.Iterator(film)) == 3
    strip = server.post("/v1/interpolate", json=walk | {"format": "strip"})
    assert Image.open(io.BytesIO(strip.content)).size == (3 * WIDTH, HEIGHT)
    asked = {"inputs": [{"name": "SEED", "datatype": "UINT64", "shape": [3], "data": SEEDS}]}
    (output,) = server.post("/v2/models/wide/infer", json=asked).json()["outputs"]
    assert output["shape"] == [3, HEIGHT, WIDTH, 3]
    assert np.array_equal(np.array(output["data"]).reshape(expected.shape), expected)


def test_from_photographs_to_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(24):
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(
            tmp_path / "photos" / f"{i}.png"
        )
    data = ["--data.path", str(tmp_path / "photos")]
    words = ["folder", *data, "--data.resolution", "24x16", "--network.ngf", "4"]
    words += ["--network.ndf", "4", "--batch-size", "8", "--total-kimg", "0.008"]
    words += ["--tick-kimg", "0.008", "--augment.policy", "flip", "rotate90", "shift"]
    words += ["--runs", str(tmp_path / "runs"), "--repository", str(tmp_path / "models")]
    assert train([*words, "--evaluation", "none"]) == 0
    said = capsys.readouterr().out
    assert f"24 images [3, 16, 24] of folder in {tmp_path / 'photos'}" in said
    bundle = tmp_path / "runs/00000-folder/bundle"
    for sheet in (bundle / "samples.png", next((bundle.parent / "samples").glob("samples-*.png"))):
        with Image.open(sheet) as picture:
            assert picture.size == (240, 160)
    assert measure([str(bundle), *data, "--measures", "coverage", "--json"]) == 0
    assert "coverage" in capsys.readouterr().out


def _data(each: Any) -> str:
    return each if isinstance(each, str) else each["data"]
