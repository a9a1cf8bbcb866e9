"""Small things that a folder tells before a training of hours."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.data import DataConfig, load
from training.data.decoding import parallel
from training.data.hints import hints


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def config(folder: Path) -> DataConfig:
    return DataConfig(dataset="folder", path=folder, resolution=16, channels=3, conditional=False)


def test_grey_images_trained_as_rgb_are_pointed_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(4):
        grey = rng.integers(0, 256, (20, 20), np.uint8)
        save(tmp_path / f"{number}.png", grey)
        save(tmp_path / f"{number}.jpg", np.stack([grey] * 3, axis=2))
    images = load(config(tmp_path))
    (hint,) = hints(images)
    assert "all 8 images are grey: --data.channels 1" in hint
    red = np.zeros((20, 20, 3), np.uint8)
    red[..., 0] = 40
    save(tmp_path / "red.png", red)
    assert hints(load(config(tmp_path))) == []


def test_captions_are_not_counted_as_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image may have any name; what is called a text and is one gets no memory."""
    pixels = np.zeros((16, 16, 3), np.uint8)
    for number in range(3):
        save(tmp_path / f"{number}.png", pixels)
        (tmp_path / f"{number}.txt").write_text("a caption")
        (tmp_path / f"{number}.json").write_text("{}")
    (tmp_path / "0.png").rename(tmp_path / "image.txt")
    counts = []
    reserve = parallel.reserve

    def counted(num: int, form: object) -> object:
        counts.append(num)
        return reserve(num, form)  # type: ignore[arg-type]

    monkeypatch.setattr(parallel, "reserve", counted)
    images = load(config(tmp_path))
    assert counts == [3]
    assert len(images) == 3
    assert sorted(skipped.name for skipped in images.skipped) == [
        "0.json",
        "0.txt",
        "1.json",
        "1.txt",
        "2.json",
        "2.txt",
    ]
    assert torch.equal(images.images, torch.zeros_like(images.images))
