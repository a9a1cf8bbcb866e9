"""Sprites on transparency, from PNG files by training, export and evaluation to HTTP: RGBA."""

import io
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageSequence

from models.bundle import Bundle
from models.latents import latents
from models.repository import Repository
from serving.client.__main__ import main as client
from tests.conftest import ServerProcess, server_process
from training.evaluate import main as evaluate
from training.run import main as train

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained RGBA model and the 40 white sprites that it was trained on."""
    root = tmp_path_factory.mktemp("alpha")
    (root / "sprites").mkdir()
    rng = np.random.default_rng(0)
    for i in range(40):
        sprite = Image.new("RGBA", (24, 24), (0, 0, 0, 0))
        x, y = rng.integers(2, 8, 2).tolist()
        ImageDraw.Draw(sprite).ellipse((x, y, x + 12, y + 12), (255, 255, 255, 255))
        sprite.save(root / "sprites" / f"{i}.png")
    words = ["folder", "--data.path", str(root / "sprites"), "--data.channels", "4"]
    words += ["--data.resolution", "16", "--network.ngf", "4", "--network.ndf", "4"]
    words += ["--batch-size", "16", "--total-kimg", "0.064", "--tick-kimg", "0.032"]
    words += ["--augment.policy", "diffaugment", "ada", "--name", "sprites"]
    places = ["--runs", str(root / "runs"), "--repository", str(root / "models")]
    assert train([*words, *places]) == 0
    return root


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return Repository(folder / "models").bundle("sprites")


@pytest.fixture(scope="module")
def served(folder: Path, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    with server_process(folder / "models", tmp_path_factory.mktemp("server")) as server:
        yield server


def expected(bundle: Bundle, seeds: list[int]) -> np.ndarray:
    from models.bundle.generator import CpuGenerator

    return CpuGenerator(bundle.model_path)(latents(seeds, bundle.manifest.z_dim), None)


def opened(response: httpx.Response) -> Image.Image:
    assert response.status_code == 200, response.text
    return Image.open(io.BytesIO(response.content))


def test_the_bundle_and_the_grids(folder: Path, bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert manifest.image.channels == 4
    assert manifest.schema_version == 2
    assert bundle.golden.images.shape[1:] == (16, 16, 4)
    assert "16x16 RGBA images" in (bundle.path / "card.md").read_text()
    samples = folder / "runs" / "00000-folder" / "samples"
    for file in (bundle.path / "samples.png", *samples.iterdir()):
        with Image.open(file) as grid:
            assert grid.mode == "RGBA"
    log = (folder / "runs" / "00000-folder" / "log.txt").read_text()
    assert "note: 40 of 40 images are transparent in places, which is kept" in log
    assert {metric.name for metric in manifest.metrics} >= {"kernel_distance", "coverage"}


def test_it_is_measured_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sprites", "--repository", str(folder / "models"), "--measures", "coverage"]
    assert evaluate([*words, "--data.path", str(folder / "sprites")]) == 0
    assert "coverage" in capsys.readouterr().out


def test_every_encoding_keeps_alpha(served: ServerProcess, bundle: Bundle) -> None:
    images = expected(bundle, [1, 2, 3])
    assert images[..., 3].std() > 0
    for kind in ("png", "webp"):
        image = opened(served.generate(seeds=[1], format=kind))
        assert image.mode == "RGBA"
        assert (np.asarray(image) == images[0]).all()
    grid = opened(served.generate(seeds=[1, 2, 3], layout="grid"))
    assert grid.size == (32, 32)
    assert (np.asarray(grid)[16:, :16] == images[2]).all()
    assert (np.asarray(grid)[16:, 16:] == 0).all()  # what is left over is transparent
    array = served.generate(seeds=[1, 2, 3], format="npy")
    assert (np.load(io.BytesIO(array.content)) == images).all()
    url = opened(served.get("/v1/models/sprites/images/2.png"))
    assert (np.asarray(url) == images[1]).all()


def test_jpeg_is_refused_in_words(served: ServerProcess) -> None:
    for response in (
        served.generate(seeds=[1], format="jpeg"),
        served.generate(seeds=[1, 2], format="jpeg", layout="grid"),
        served.get("/v1/models/sprites/images/2.jpg"),
    ):
        assert response.status_code == 400
        assert response.json()["detail"] == (
            "format is 'jpeg', which can't hold the transparency of the images of model 'sprites'; "
            "allowed are png, webp and npy"
        )
    body = {"seeds": [1]}
    only = served.post("/v1/generate", json=body, headers={"accept": "image/jpeg"})
    assert only.status_code == 406
    assert "image/png, image/webp" in only.json()["detail"]
    rather = {"accept": "image/jpeg, image/webp;q=0.5"}
    assert opened(served.post("/v1/generate", json=body, headers=rather)).format == "WEBP"


def test_walks(served: ServerProcess, bundle: Bundle) -> None:
    first = expected(bundle, [1])[0]
    body = {"seeds": [1, 2], "frames": 4}
    strip = opened(served.post("/v1/interpolate", json={**body, "format": "strip"}))
    assert (np.asarray(strip)[:, :16] == first).all()
    walk = opened(served.post("/v1/interpolate", json={**body, "format": "webp"}))
    frames = [np.asarray(frame.convert("RGBA")) for frame in ImageSequence.Iterator(walk)]
    assert len(frames) == 4
    seen = first[..., 3] > 0
    assert (frames[0][seen] == first[seen]).all()
    assert (frames[0][..., 3] == first[..., 3]).all()
    gif = opened(served.post("/v1/interpolate", json={**body, "format": "gif"}))
    shown = np.asarray(gif.convert("RGBA"))
    assert set(np.unique(shown[..., 3])) <= {0, 255}  # GIF has no more


def test_other_routes(served: ServerProcess, capsys: pytest.CaptureFixture[str]) -> None:
    (model,) = served.get("/v1/models").json()["models"]
    assert model["image"] == {"height": 16, "width": 16, "channels": 4}
    metadata = served.get("/v2/models/sprites").json()
    assert metadata["outputs"][0]["shape"] == [-1, 16, 16, 4]
    assert client(["--url", served.url, "models"]) == 0
    assert "16x16 RGBA" in capsys.readouterr().out
