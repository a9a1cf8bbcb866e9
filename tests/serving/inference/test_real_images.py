"""The encoder and the score in a worker: rows alike in any batch; a failure is its own row's."""

import logging
from collections.abc import Callable

import numpy as np
import pytest

from models.bundle import Bundle
from models.bundle.anomaly import SCORE
from models.bundle.generator import CpuGenerator
from models.errors import BundleError
from models.latents import latents
from serving.inference.parts.real_images import RealImageRuns
from serving.inference.parts.rows import (
    ENCODER_PART,
    SCORE_PART,
    encoder_output,
    packed,
    score_output,
    unpacked,
)
from serving.inference.sessions import Compute
from tests.real_images import FRAGILE, FULL, OLD

CPU = Compute(device="cpu", num_threads=2)


def rows_of(bundle: Bundle, images: np.ndarray, starts: np.ndarray | None = None) -> np.ndarray:
    num, z_dim = len(images), bundle.manifest.z_dim
    starts = np.zeros((num, z_dim), np.float32) if starts is None else starts
    return packed([images, np.ones(images.shape[:3], np.uint8), starts, np.zeros(num, np.int64)])


@pytest.fixture(scope="module")
def fragile(make_bundle: Callable[..., Bundle]) -> Bundle:
    return make_bundle(encoder=FRAGILE, num_classes=3, size=(8, 12), channels=3, scale=10)


def images_of(bundle: Bundle, num: int) -> np.ndarray:
    z = latents(np.arange(num, dtype=np.uint64), bundle.manifest.z_dim)
    labels = np.arange(num, dtype=np.int64) % 3
    images = CpuGenerator(bundle.model_path)(z, labels if bundle.manifest.conditional else None)
    images[:, 0, 0, 0] = 12
    return images


def test_rows_are_the_same_alone_and_in_any_batch(fragile: Bundle) -> None:
    run = RealImageRuns(fragile, CPU)
    rows = rows_of(fragile, images_of(fragile, 7))
    together = run(ENCODER_PART, rows)
    alone = np.concatenate([run(ENCODER_PART, row[None]) for row in rows])
    assert np.array_equal(together, alone)
    found = encoder_output(together, fragile.manifest, 3)
    assert not found.failed.any()
    assert found.label_scores.argmax(1).tolist() == [0, 1, 2, 0, 1, 2, 0]
    wanted = latents(np.arange(7, dtype=np.uint64), fragile.manifest.z_dim)
    assert np.abs(found.z - wanted).max() < 0.3


def test_a_row_that_fails_fails_alone(fragile: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    images = images_of(fragile, 3)
    good = RealImageRuns(fragile, CPU)(ENCODER_PART, rows_of(fragile, images))
    images[1, 0, 0, 0] = 13
    with caplog.at_level(logging.ERROR):
        found = RealImageRuns(fragile, CPU)(ENCODER_PART, rows_of(fragile, images))
    assert encoder_output(found, fragile.manifest, 3).failed.tolist() == [False, True, False]
    assert np.array_equal(found[[0, 2]], good[[0, 2]])
    assert ["encoder.onnx can't be run" in each.getMessage() for each in caplog.records] == [True]


def test_a_score_is_that_of_the_graph(fragile: Bundle) -> None:
    images = images_of(fragile, 4)
    given = packed([images, images[::-1]])
    found = score_output(RealImageRuns(fragile, CPU)(SCORE_PART, given), fragile.manifest)
    expected = np.square((images.astype(np.float32) - images[::-1]) / 127.5).mean(axis=3)
    assert np.allclose(found.residuals, expected, atol=1e-5)
    assert np.allclose(found.scores, 1.25 * expected.mean(axis=(1, 2)), atol=1e-5)


def test_an_old_encoder_runs_and_has_no_score(make_bundle: Callable[..., Bundle]) -> None:
    bundle = make_bundle(encoder=OLD, scale=10)
    run = RealImageRuns(bundle, CPU)
    images = images_of(bundle, 2)
    found = encoder_output(run(ENCODER_PART, rows_of(bundle, images)), bundle.manifest, 0)
    assert found.z.shape == (2, 6)
    with pytest.raises(BundleError, match=r"score\.onnx: is not in the bundle"):
        run(SCORE_PART, packed([images, images]))


def test_a_graph_that_is_not_the_one_of_its_golden_values(
    make_bundle: Callable[..., Bundle],
) -> None:
    """A file that was changed since its digest was compared is opened, and refused."""
    bundle = make_bundle(encoder=FULL)
    (bundle.path / SCORE).write_bytes((bundle.path / "encoder.onnx").read_bytes())
    with pytest.raises(BundleError, match=r"score\.onnx: takes"):
        RealImageRuns(bundle, CPU)(SCORE_PART, np.zeros((1, 128), np.uint8))


def test_rows_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="rows have 5 bytes, must have 4"):
        unpacked(np.zeros((2, 5), np.uint8), [(np.float32, ())])
