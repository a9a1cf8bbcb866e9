"""Calibration takes images that the model hasn't seen, and its p is what it says."""

import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from models.bundle import Bundle
from models.bundle.anomaly import Calibration, read_calibration
from models.repository import Repository
from training.data import ImageSet, load
from training.data.config import DataConfig
from training.data.images_record import digests, images_record
from training.errors import ConfigError, DataError
from training.inversion.__main__ import main
from training.inversion.calibrate_command import FIGURE, threshold, unseen
from training.inversion.opened import Opened
from training.inversion.score_command import scored


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
    found_classes = Opened(published).encode(published.golden.images[:1]).labels
    assert found_classes is not None
    other = (published.manifest.labels or ())[(int(found_classes[0]) + 1) % 3]
    for command in (words, ["score", "tiny", "x.png", "--repository", str(copy.root)]):
        capsys.readouterr()
        assert main([*command, "--label", other]) == 2
        assert f"label is {other!r}, allowed: none, as the encoder finds" in capsys.readouterr().err
    words = ["score", "tiny", str(folder / "23.png"), "--repository", str(copy.root)]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    assert "| image | score | p | largest" in capsys.readouterr().out
    arrays = np.load(tmp_path / "out" / "residuals.npz")
    assert arrays["p"].tolist() == found.p_values(arrays["score"]).tolist()


def test_images_that_the_model_has_seen_are_refused(model: Bundle) -> None:
    content = model.manifest.dataset.content or model.manifest.dataset.fingerprint
    images = torch.zeros(3, 1, 16, 16, dtype=torch.uint8)
    other = ImageSet("t", images, None, None, "1" * 64, ())
    seen = ImageSet("t", images, None, None, content, (), held_out=None)
    data = DataConfig()
    assert unseen(Opened(model), other, data) is other
    with pytest.raises(ConfigError, match="data is what the model was trained on"):
        unseen(Opened(model), seen, data)
    apart = ImageSet("t", images, None, None, content, (), held_out=other)
    assert unseen(Opened(model), apart, data) is other


def test_what_was_trained_on_is_known_by_its_name_and_its_share(model: Bundle) -> None:
    images = torch.zeros(3, 1, 16, 16, dtype=torch.uint8)
    other = ImageSet("digits", images, None, None, "1" * 64, ())
    trained = {"dataset": "digits", "held_out": 0.1}
    manifest = msgspec.structs.replace(model.manifest, options={"data": trained})
    opened = Opened(replace(model, manifest=manifest))
    with pytest.raises(ConfigError, match="data is what the model was trained on"):
        unseen(opened, other, DataConfig(conditional=False, only="3"))
    halves = replace(other, held_out=replace(other))
    assert unseen(opened, halves, DataConfig(held_out=0.1)) is halves.held_out
    with pytest.raises(ConfigError, match=r"data\.held_out is 0\.2, allowed: 0\.1"):
        unseen(opened, halves, DataConfig(held_out=0.2))
    assert unseen(opened, other, DataConfig(dataset="folder", path=Path("x"))) is other
    trained = {"dataset": "mnist", "split": "auto"}
    manifest = msgspec.structs.replace(model.manifest, options={"data": trained})
    opened = Opened(replace(model, manifest=manifest))
    test_part = DataConfig(dataset="mnist", split="test")
    assert unseen(opened, other, test_part) is other
    with pytest.raises(ConfigError, match="data is what the model was trained on"):
        unseen(opened, other, DataConfig(dataset="mnist", split="train"))


def test_a_few_copies_are_left_out_and_many_are_refused(model: Bundle) -> None:
    images = torch.arange(200, dtype=torch.uint8)[:, None, None, None].expand(200, 1, 16, 16)
    other = ImageSet("t", images.contiguous(), None, None, "1" * 64, ())
    seen = digests(other)
    said: list[str] = []
    found = unseen(Opened(model), other, DataConfig(), frozenset(seen[:2]), said.append)
    assert digests(found) == seen[2:]
    assert said == ["left out: 2 images that the model was trained on, pixel by pixel"]
    with pytest.raises(ConfigError, match=r"data is in part .*: 3 of 200 images"):
        unseen(Opened(model), other, DataConfig(), frozenset(seen[:3]), said.append)


def test_of_other_images_none_is_held_out(model: Bundle, tmp_path: Path) -> None:
    _class_folders(tmp_path / "own")
    options = {"dataset": "folder", "held_out": 0.4, "conditional": False}
    manifest = msgspec.structs.replace(model.manifest, options={"data": options})
    data = DataConfig(
        dataset="folder", path=tmp_path / "own", resolution=16, conditional=False, held_out=0.4
    )
    opened = Opened(replace(model, manifest=manifest))
    assert len(unseen(opened, load(data), data)) == 60


def _class_folders(folder: Path) -> None:
    """Two classes of 30 images of noise each."""
    rng = np.random.default_rng(0)
    for number in range(60):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(path)


@pytest.mark.parametrize("held_out", [0.0, 0.4])
def test_any_class_of_own_images_that_were_seen(
    model: Bundle, tmp_path: Path, held_out: float
) -> None:
    _class_folders(tmp_path / "own")
    own = DataConfig(
        dataset="folder", path=tmp_path / "own", resolution=16, conditional=False, held_out=held_out
    )
    trained = load(own)
    options = {"dataset": "folder", "held_out": held_out, "conditional": False}
    dataset = msgspec.structs.replace(model.manifest.dataset, content=trained.content)
    manifest = msgspec.structs.replace(
        model.manifest, dataset=dataset, options={"data": options | {"only": ""}}
    )
    opened = Opened(replace(model, manifest=manifest))
    one = replace(own, only="a")
    if held_out:
        found = unseen(opened, load(one), one)
        assert set(digests(found)) <= set(digests(trained.held_out))  # type: ignore[arg-type]
        assert set(found.classes or ()) == {"a"}
    else:
        with pytest.raises(ConfigError, match="data is what the model was trained on"):
            unseen(opened, load(one), one)
    # The folder of one class isn't that of the training: its run's record of images tells.
    alone = replace(own, path=tmp_path / "own" / "a", held_out=0.0)
    recorded = frozenset(digests(trained))
    with pytest.raises(ConfigError, match=r"data is in part .*: \d+ of 30 images \(.*png"):
        unseen(opened, load(alone), alone, recorded)
    assert len(unseen(opened, load(alone), alone)) == 30
    # And the other way round: trained on one class, all of them given.
    dataset = msgspec.structs.replace(model.manifest.dataset, content=load(one).content)
    manifest = msgspec.structs.replace(
        model.manifest, dataset=dataset, options={"data": options | {"only": "a"}}
    )
    if not held_out:
        with pytest.raises(ConfigError, match="data is what the model was trained on"):
            unseen(Opened(replace(model, manifest=manifest)), trained, own)


def test_the_record_of_a_run_is_asked(
    model: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _class_folders(tmp_path / "own")
    own = DataConfig(
        dataset="folder", path=tmp_path / "own", resolution=16, conditional=False, only="a"
    )
    run = tmp_path / "runs" / "00000-test"
    shutil.copytree(model.path, run / "bundle")
    (run / "config.json").write_text("{}")
    (run / "images.csv").write_bytes(images_record(load(own)))
    words = ["calibrate", str(model.path), "--runs", str(tmp_path / "runs"), "--no-publish"]
    words += ["--data.dataset", "folder", "--data.path"]
    assert main([*words, str(tmp_path / "own" / "a")]) == 2
    assert "data is in part what the model was trained on: 30 of 30" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "own" / "b")]) == 0


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


def test_score_says_how_unusual_images_are_and_where(
    model: Bundle, at: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = Opened(model).make(np.zeros((1, 4), np.float32), np.zeros(1, np.int64))[0, ..., 0]
    odd = usual.copy()
    odd[3:5, 6:9] = 255 - odd[3:5, 6:9]
    for name, image in (("usual", usual), ("odd", odd)):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    files = [str(tmp_path / f"{name}.png") for name in ("usual", "odd")]
    assert main(["score", "tiny", *files, *at]) == 0
    printed = capsys.readouterr().out
    assert "| image | score | largest difference of a pixel |" in printed
    assert "no p: the model is not calibrated" in printed
    arrays = np.load(tmp_path / "out" / "residuals.npz")
    made = scored(Opened(model), np.stack([usual, odd])[..., None], None)
    assert np.allclose(arrays["score"], made.score)
    assert arrays["residual"].shape == (2, 16, 16)
    with Image.open(tmp_path / "out" / "sheet.png") as picture:
        assert picture.size == (2 * 64, 3 * 64)
        # The map is white where the residual is largest.
        row, y, x = np.unravel_index(arrays["residual"].argmax(), arrays["residual"].shape)
        assert picture.getpixel((int(row) * 64 + int(x) * 4, 128 + int(y) * 4)) == 255
    # Without a calibration there is no p that a class would spoil: it is searched under.
    both = np.stack([usual, odd])[..., None]
    found = Opened(model).encode(both).labels
    assert found is not None
    told = scored(Opened(model), both, (found + 1) % 3)
    assert not np.allclose(told.score, made.score)
    assert main(["score", "tiny", *at]) == 2
    assert "FILES is 'none'" in capsys.readouterr().err
