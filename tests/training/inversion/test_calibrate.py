"""Calibration takes images that the model hasn't seen, and its p is what it says."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.bundle import Bundle
from models.bundle.anomaly import Calibration, read_calibration
from models.repository import Repository
from training.data import ImageSet, load
from training.data.config import DataConfig
from training.errors import ConfigError, DataError
from training.inversion.__main__ import main
from training.inversion.calibrate_command import FIGURE, threshold, unseen
from training.inversion.opened import Opened


def test_a_model_gets_its_scale(
    model: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng, folder = np.random.default_rng(0), tmp_path / "usual"
    folder.mkdir()
    for number in range(24):
        image = rng.integers(0, 256, (16, 16), dtype=np.uint8)
        Image.fromarray(image).save(folder / f"{number}.png")
    copy = Repository(tmp_path / "models")
    copy.publish("tiny", model)
    words = ["calibrate", "tiny", "--repository", str(copy.root), "--data.dataset", "folder"]
    words += ["--data.path", str(folder), "--num-images", "20"]
    assert main(words) == 0
    assert "20 images, smallest p 0.048" in capsys.readouterr().out
    published = copy.bundle("tiny")
    found = read_calibration(published)
    assert found is not None
    assert found.scores.shape == (20,)
    assert found.scores[0] > 0
    assert found.p_values(1e9).tolist() == pytest.approx(1 / 21)
    assert published.manifest.files["model.onnx"] == model.manifest.files["model.onnx"]
    assert [m.value for m in published.manifest.metrics if m.name == FIGURE] == [20]


def test_images_that_the_model_has_seen_are_refused(model: Bundle) -> None:
    content = model.manifest.dataset.content or model.manifest.dataset.fingerprint
    images = torch.zeros(3, 1, 16, 16, dtype=torch.uint8)
    other = ImageSet("t", images, None, None, "1" * 64, ())
    seen = ImageSet("t", images, None, None, content, (), held_out=None)
    assert unseen(Opened(model), other) is other
    with pytest.raises(ConfigError, match="data is what the model was trained on"):
        unseen(Opened(model), seen)
    apart = ImageSet("t", images, None, None, content, (), held_out=other)
    assert unseen(Opened(model), apart) is other


def test_a_threshold_alarms_where_p_does() -> None:
    scores = np.sort(np.random.default_rng(0).random(99))
    calibration = Calibration(scores)
    for rate in (0.1, 0.05, 0.01):
        least = threshold(scores, rate)
        assert calibration.p_values(least) <= rate
        assert calibration.p_values(np.nextafter(least, 0)) > rate
    assert threshold(scores[:10], 0.05) == float("inf")


def test_one_class_of_the_data() -> None:
    digits = load(DataConfig(resolution=8))
    threes = load(DataConfig(resolution=8, conditional=False, only="3"))
    assert digits.labels is not None
    assert len(threes) == int((digits.labels == 3).sum())
    assert set(threes.classes or ()) == {"3"}
    assert threes.labels is None
    with pytest.raises(DataError, match=r"data\.only is 'x'; the data has the classes 0, 1"):
        load(DataConfig(resolution=8, conditional=False, only="x"))
    with pytest.raises(ConfigError, match="one class leaves nothing to tell apart"):
        DataConfig(only="3")
    with pytest.raises(ConfigError, match="has no classes"):
        DataConfig(dataset="celeba", channels=3, conditional=False, only="3")
