"""Images that are held out: which, that they are never trained on, and what they tell of D."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.data import DataConfig, load
from training.errors import ConfigError, DataError

SHARE = 0.2


def pixels_of(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def test_a_share_is_kept_apart_and_the_rest_is_another_set() -> None:
    config = DataConfig(resolution=16)
    whole, kept = load(config), load(replace(config, held_out=SHARE))
    assert kept.held_out is not None
    assert len(kept) + len(kept.held_out) == len(whole)
    assert len(kept.held_out) / len(whole) == pytest.approx(SHARE, abs=0.03)
    assert not pixels_of(kept.images) & pixels_of(kept.held_out.images)
    assert pixels_of(kept.images) | pixels_of(kept.held_out.images) == pixels_of(whole.images)
    assert kept.fingerprint != whole.fingerprint
    # Labels go with their images.
    by_pixels = {i.numpy().tobytes(): int(n) for i, n in zip(whole.images, whole.labels)}  # type: ignore[arg-type]  # noqa: B905
    for part in (kept, kept.held_out):
        assert part.labels is not None
        for image, label in zip(part.images, part.labels, strict=True):
            assert by_pixels[image.numpy().tobytes()] == label


def test_neither_names_nor_order_decide(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (60, 16, 16, 3), dtype=np.uint8)
    found = []
    for name, order in (("one", range(60)), ("other", rng.permutation(60))):
        folder = tmp_path / name
        folder.mkdir()
        for place, index in enumerate(order):
            Image.fromarray(pictures[index]).save(folder / f"{name}{place:03}.png")
        config = DataConfig(
            dataset="folder", path=folder, resolution=16, channels=3, conditional=False,
            held_out=SHARE,
        )  # fmt: skip
        image_set = load(config)
        assert image_set.held_out is not None
        found.append(pixels_of(image_set.held_out.images))
        assert len(image_set.origins) == len(image_set)
    assert found[0] == found[1]


def test_shares_that_leave_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.held_out is 0\.7; allowed are 0 \.\. 0\.5"):
        DataConfig(held_out=0.7)
    for index in range(3):
        Image.new("RGB", (16, 16), (index, 0, 0)).save(tmp_path / f"{index}.png")
    few = DataConfig(
        dataset="folder", path=tmp_path, resolution=16, channels=3, conditional=False, held_out=0.1
    )
    with pytest.raises(DataError, match="2 of each are needed"):
        load(few)
