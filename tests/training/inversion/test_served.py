"""What `python -m training.inversion` publishes, the server answers with."""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.bundle import Bundle
from models.bundle.anomaly import SCORE, read_calibration
from models.bundle.generator import CpuGenerator
from models.bundle.runtime import open_session
from models.latents import latents
from models.repository import Repository
from models.restoration import shrunk
from tests.conftest import ServerProcess, server_process
from training.inversion.__main__ import main

NUM_USUAL = 20


@dataclass(frozen=True)
class Served:
    """The calibrated version, and the server that serves it."""

    bundle: Bundle
    server: ServerProcess

    def post(self, route: str, **body: Any) -> Any:
        """The answer's JSON."""
        reply = self.server.post(f"/v1/{route}", json=body)
        assert reply.status_code == 200, reply.text
        return reply.json()


@pytest.fixture(scope="module")
def served(repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The encoder's version, calibrated by the command on images of noise."""
    folder = tmp_path_factory.mktemp("served")
    usual = folder / "usual"
    usual.mkdir()
    rng = np.random.default_rng(0)
    for number in range(NUM_USUAL):
        Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(usual / f"{number}.png")
    copy = Repository(folder / "models")
    copy.publish("tiny", repository.bundle("tiny"))
    words = ["calibrate", "tiny", "--repository", str(copy.root)]
    assert main([*words, "--data.dataset", "folder", "--data.path", str(usual)]) == 0
    with server_process(copy.root, folder) as server:
        yield Served(copy.bundle("tiny"), server)


@pytest.fixture
def images(served: Served) -> np.ndarray[Any, Any]:
    """Images that the model makes, [3, 16, 16, 1]."""
    z = latents(np.arange(3, dtype=np.uint64), 4)
    return CpuGenerator(served.bundle.model_path)(z, np.arange(3, dtype=np.int64))


def npy(array: np.ndarray[Any, Any]) -> str:
    """An array as a field of JSON."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return base64.b64encode(buffer.getvalue()).decode()


def pixels(data: str) -> np.ndarray[Any, Any]:
    """The pixels [H, W, 1] of a grey file in base64."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))[:, :, None]


def by_hand(
    bundle: Bundle, images: np.ndarray[Any, Any], **given: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """z and the class of each image, as ONNX Runtime gives them without anything of ours."""
    feed = {
        "image": images,
        "mask": np.ones(images.shape[:3], np.uint8),
        "start": np.zeros((len(images), 4), np.float32),
        "label": np.full(len(images), -1),
    }
    z, scores = open_session(bundle.path / "encoder.onnx").run(["z", "label_scores"], feed | given)
    return z, scores.argmax(1)


@pytest.mark.e2e
def test_latents_are_those_of_the_graph(served: Served, images: np.ndarray[Any, Any]) -> None:
    z, label = by_hand(served.bundle, images)
    found = served.post("encode", images=[npy(each) for each in images], reconstruct=True)
    assert found["digest"] == served.bundle.digest
    answered = np.array([each["latent"] for each in found["images"]], np.float32)
    assert np.allclose(answered, z, atol=1e-5)
    assert [each["label"] for each in found["images"]] == label.tolist()
    made = CpuGenerator(served.bundle.model_path)(z, label)
    for each, expected in zip(found["images"], made, strict=True):
        difference = pixels(each["reconstruction"]).astype(int) - expected
        assert np.abs(difference).max() <= 1


@pytest.mark.e2e
def test_known_pixels_stay_and_answers_differ(served: Served, images: np.ndarray[Any, Any]) -> None:
    hole = np.zeros((16, 16), np.uint8)
    hole[4:12, 2:9] = 255
    found = served.post("inpaint", image=npy(images[0]), mask=npy(hole), seeds=[1, 2])
    first, second = (pixels(each["data"]) for each in found["images"])
    for answer in (first, second):
        assert np.array_equal(answer[hole == 0], images[0][hole == 0])
    assert not np.array_equal(first, second)
    start = latents(np.array([1], np.uint64), 4)
    known = (hole == 0).astype(np.uint8)
    z, label = by_hand(served.bundle, images[:1], mask=known[None], start=start)
    made = CpuGenerator(served.bundle.model_path)(z, label)[0]
    error = np.square((made.astype(float) - images[0]) / 255)[known > 0].mean()
    assert found["images"][0]["error"] == pytest.approx(float(error), rel=0.02)


@pytest.mark.e2e
def test_a_small_image_becomes_one_of_the_models_size(
    served: Served, images: np.ndarray[Any, Any]
) -> None:
    small = shrunk(images[:1], 2)[0].round().astype(np.uint8)
    answer, _ = served.post("upscale", image=npy(small), seeds=[1, 2])["images"]
    assert pixels(answer["data"]).shape == (16, 16, 1)
    error = np.square((shrunk(pixels(answer["data"])[None], 2)[0] - small) / 255).mean()
    assert answer["error"] == pytest.approx(float(error), rel=1e-4)


@pytest.mark.e2e
def test_a_score_is_that_of_the_graph_and_p_that_of_the_calibration(
    served: Served, images: np.ndarray[Any, Any]
) -> None:
    z, label = by_hand(served.bundle, images)
    made = CpuGenerator(served.bundle.model_path)(z, label)
    session = open_session(served.bundle.path / SCORE)
    (scores,) = session.run(["score"], {"image": images, "reconstruction": made})
    calibration = read_calibration(served.bundle)
    assert calibration is not None
    found = served.post("score", images=[npy(each) for each in images])
    assert found["num_calibration"] == NUM_USUAL
    assert found["compares"] == ["pixels", "features"]
    for each, score in zip(found["images"], scores, strict=True):
        assert each["score"] == pytest.approx(float(score), rel=0.02)
        usual = int((calibration.scores >= each["score"]).sum())
        assert each["p"] == pytest.approx((1 + usual) / (NUM_USUAL + 1))
