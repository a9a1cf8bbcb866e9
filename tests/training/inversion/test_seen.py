"""The images that an encoder learned from go with it, and aren't calibrated or judged with."""

import io
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from models.bundle import Bundle
from models.repository import Repository
from tests.training.inversion.conftest import TRAIN
from training.data import DataConfig, ImageSet, load
from training.data.images_record import digests
from training.errors import CheckpointError, ConfigError
from training.inversion import seen
from training.inversion.__main__ import main
from training.inversion.calibrate_command import unseen
from training.inversion.opened import Opened
from training.inversion.seen import (
    ENCODER_IMAGES,
    encoder_images,
    encoder_record,
    require_held_out,
)


def noise(folder: Path, seed: int) -> Path:
    """Twenty images of each of the classes a, b, c."""
    rng = np.random.default_rng(seed)
    for number in range(60):
        path = folder / "abc"[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(path)
    return folder


def test_the_encoders_images_are_no_calibration(
    plain: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, other = noise(tmp_path / "mine", 1), noise(tmp_path / "other", 2)
    copy = Repository(tmp_path / "models")
    copy.publish("tiny", plain)
    at = ["--repository", str(copy.root), "--runs", str(tmp_path), "--data.dataset", "folder"]
    own = ["--data.conditional", "--data.path", str(mine)]
    train = [*TRAIN[2:], "--real", "0.25"]
    assert main(["encoder", "tiny", *at, *own, *train]) == 0
    published = copy.bundle("tiny")
    recorded = encoder_images(published)
    assert recorded is not None
    assert len(recorded) == 54  # all but every tenth
    capsys.readouterr()
    assert main(["calibrate", "tiny", *at, *own]) == 2
    assert "data is in part what the encoder was trained on: 54 of 60" in capsys.readouterr().err
    assert copy.bundle("tiny").manifest.version == 2
    # A few copies among others are left out.
    for name in ("4.png", "5.png"):
        (path,) = mine.rglob(name)
        path.rename(other / path.parent.name / f"copy-{name}")
    with pytest.raises(ConfigError, match="the encoder was trained on: 2 of 62"):
        unseen(Opened(published), *loaded(other))
    assert main(["calibrate", "tiny", *at, "--data.path", str(noise(tmp_path / "last", 3))]) == 0


def loaded(folder: Path) -> tuple[ImageSet, DataConfig]:
    config = DataConfig(dataset="folder", path=folder, resolution=16, conditional=False)
    return load(config), config


def test_a_bundle_without_a_record_says_so(model: Bundle) -> None:
    images = torch.zeros(3, 1, 16, 16, dtype=torch.uint8)
    image_set = ImageSet("t", images, None, None, "1" * 64, ())
    said: list[str] = []
    assert encoder_images(model) == frozenset()  # --real 0
    assert unseen(Opened(model), image_set, DataConfig(), (), said.append) is image_set
    assert not said
    files = {k: v for k, v in model.manifest.files.items() if k != ENCODER_IMAGES}
    earlier = replace(model, manifest=msgspec.structs.replace(model.manifest, files=files))
    assert encoder_images(earlier) is None
    assert unseen(Opened(earlier), image_set, DataConfig(), (), said.append) is image_set
    assert "doesn't say which real images its encoder learned from" in said[0]


def test_a_record_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.arange(20, dtype=torch.uint8).reshape(20, 1, 1, 1)
    image_set = ImageSet("t", images, None, None, "1" * 64, ())
    whole = np.load(io.BytesIO(encoder_record(image_set)))["digests"]
    assert [f"{each:016x}" for each in whole] == sorted(digests(image_set))
    monkeypatch.setattr(seen, "MOST", 5)
    few = np.load(io.BytesIO(encoder_record(image_set)))["digests"]
    assert few.tolist() == whole[:5].tolist()


def test_a_record_that_was_altered_is_refused(model: Bundle, tmp_path: Path) -> None:
    (tmp_path / ENCODER_IMAGES).write_bytes(b"other")
    with pytest.raises(CheckpointError, match="was altered"):
        encoder_images(replace(model, path=tmp_path))


@pytest.mark.parametrize("only", ["", "a"])
def test_an_encoder_does_not_see_what_the_training_held_out(
    model: Bundle, tmp_path: Path, only: str
) -> None:
    _, own = loaded(noise(tmp_path, 1))
    trained = replace(own, held_out=0.4)
    options = {"dataset": "folder", "held_out": 0.4, "conditional": False, "only": ""}
    manifest = msgspec.structs.replace(
        model.manifest,
        dataset=msgspec.structs.replace(model.manifest.dataset, content=load(trained).content),
        options={"data": options},
    )
    for share in (0.0, 0.2):
        given = replace(own, held_out=share, only="" if share else only)
        with pytest.raises(ConfigError, match=rf"data\.held_out is {share:g}, allowed: 0\.4 or"):
            require_held_out(manifest, load(given), given)
    for share in (0.4, 0.5):  # a larger share holds out the same, and more
        given = replace(own, held_out=share)
        require_held_out(manifest, load(given), given)
        held_out, kept = load(trained).held_out, load(given)
        assert held_out is not None
        assert not set(digests(held_out)) & set(digests(kept))
    other, config = loaded(noise(tmp_path / "other", 2))
    require_held_out(manifest, other, config)


@pytest.mark.parametrize("option", [["--data.path", "x"], ["--data.held-out=0"]])
def test_data_of_an_encoder_that_takes_none(
    plain: Bundle, option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["encoder", str(plain.path), "--real", "0", *option]) == 2
    name = option[0].partition("=")[0]
    assert f"real is 0, so that the encoder learns from no data, but {name} is given" in (
        capsys.readouterr().err
    )
