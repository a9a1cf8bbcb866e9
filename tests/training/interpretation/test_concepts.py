"""Concepts on shapes that were drawn by hand, and correlations against SciPy's."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from training.data import ImageSet
from training.interpretation import concepts
from training.interpretation.concepts import (
    class_logits,
    colours,
    ink,
    measure,
    names_of,
    shapes,
    spearman,
)


def bar(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros((1, 32, 32))
    mask[0, top : top + height, left : left + width] = 1
    return mask


def test_a_bar_is_as_thick_and_as_long_as_it_was_drawn() -> None:
    thin, thick = shapes(bar(4, 10, 24, 2)), shapes(bar(4, 10, 24, 6))
    assert thin["area"] == 48
    assert thin["thickness"] == pytest.approx(2, rel=0.15)
    assert thin["length"] == pytest.approx(24, rel=0.15)
    assert thick["thickness"] > 2 * thin["thickness"]
    assert thick["width"] > thin["width"]
    assert thick["height"] == pytest.approx(float(thin["height"][0]))


def test_slant_is_to_the_right_for_each_pixel_upwards() -> None:
    mask = np.zeros((2, 33, 33))
    for y in range(4, 29):
        mask[0, y, 16 + (16 - y) // 2] = 1
        mask[1, y, 16 + (y - 16) // 2] = 1
    right, left = shapes(mask)["slant"]
    assert right == pytest.approx(0.5, abs=0.05)
    assert left == pytest.approx(-0.5, abs=0.05)


def test_places_and_halves() -> None:
    found = shapes(np.concatenate([bar(2, 2, 6, 6), bar(20, 20, 6, 6)]))
    assert found["position to the right"].tolist() == [4.5, 22.5]
    assert found["position upwards"].tolist() == [-4.5, -22.5]
    assert found["ink in the upper half"].tolist() == [1, 0]
    assert found["ink in the left half"].tolist() == [1, 0]


def test_a_shape_is_what_differs_from_the_border() -> None:
    black = np.zeros((1, 8, 8, 1), np.uint8)
    black[0, 3:5, 3:5] = 255
    assert np.array_equal(ink(black), ink(255 - black))
    assert ink(black).sum() == 4
    clear = np.full((1, 8, 8, 4), 255, np.uint8)
    clear[..., 3] = 51
    assert np.allclose(ink(clear), 0.2)


def test_nothing_at_all_is_0_and_no_fault() -> None:
    found = measure(np.zeros((3, 9, 7, 3), np.uint8), {})
    assert all((values == 0).all() for values in found.values())
    assert tuple(found) == names_of(3, {})
    assert "warmth" not in names_of(1, {})
    red = np.zeros((1, 4, 4, 3), np.uint8)
    red[..., 0] = 255
    assert colours(red)["warmth"] == 1
    assert colours(red)["saturation"] == 1


@pytest.mark.parametrize("ties", [False, True])
def test_the_correlation_is_spearman_s(ties: bool) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((2, 50))
    b += a
    if ties:
        b = b.round()
    found = spearman(a, [b, np.ones(50), np.exp(a)])
    assert found[0] == pytest.approx(spearmanr(a, b).statistic)
    assert found[1] == 0
    assert found[2] == pytest.approx(1)


def squares(num: int, names: tuple[str, ...] | None, *, noise: bool = False) -> ImageSet:
    """Images whose class decides where a square lies, unless they are noise."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(names or (1,)), num)
    images = rng.integers(0, 40, (num, 1, 20, 20)).astype(np.uint8)
    if not noise:
        for image, label in zip(images, labels, strict=True):
            image[0, 2:8, 6 * label : 6 * label + 6] = 250
    return ImageSet(
        "tiny",
        torch.from_numpy(images),
        None if names is None else torch.from_numpy(labels),
        names,
        "0" * 64,
        (),
    )


@pytest.mark.parametrize("names", [("a", "b:c"), ("a", "b:c", "d")])
def test_a_logit_is_largest_on_its_own_class(names: tuple[str, ...]) -> None:
    data = squares(240, names)
    found = class_logits(data)
    assert list(found) == [f"like {name.replace(':', ' ')}" for name in names]
    images = data.images.permute(0, 2, 3, 1).numpy()
    logits = np.stack([concept(images) for concept in found.values()])
    assert data.labels is not None
    assert (logits.argmax(0) == data.labels.numpy()).mean() > 0.95


def test_a_classifier_that_guesses_is_no_evidence() -> None:
    assert class_logits(squares(240, ("a", "b"), noise=True)) == {}
    assert class_logits(squares(240, None)) == {}
    assert class_logits(squares(4, tuple("abcdefgh"))) == {}


def test_large_images_are_made_small_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
    whole = concepts._small(images)
    monkeypatch.setattr(concepts, "_CHUNK_VALUES", 2 * 32 * 32 * 3)
    assert whole.shape == (9, 16 * 16 * 3)
    assert concepts._small(images) == pytest.approx(whole)
