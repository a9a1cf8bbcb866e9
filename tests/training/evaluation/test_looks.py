import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from models.bundle.generator import Sampler
from training.data import DataConfig, ImageSet, load
from training.evaluation.evaluator import evaluate_sampler
from training.evaluation.looks import FIGURES, Looker, better
from training.evaluation.plan import QUICK


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return load(DataConfig(resolution=16))


def noisy(images: ImageSet, noise: float) -> Sampler:
    """Real images with noise on them, in the place of generated ones."""
    real = images.images.permute(0, 2, 3, 1).numpy()

    def generate(
        z: npt.NDArray[np.float32],
        label: npt.NDArray[np.int64] | None = None,
        psi: npt.NDArray[np.float32] | None = None,
    ) -> npt.NDArray[np.uint8]:
        index = (np.abs(z[:, 0]) * 1e5).astype(np.int64) % len(real)
        shift = np.resize(z, real[index].shape) * noise
        return (real[index] + shift).clip(0, 255).astype(np.uint8)

    return Sampler(generate, z_dim=64, num_classes=10)


def test_a_look_has_the_figures_of_the_quick_evaluation(digits: ImageSet) -> None:
    looker = Looker(digits)
    found = looker.look(noisy(digits, 20))
    assert tuple(found) == FIGURES
    plan = dataclasses.replace(QUICK, figures=FIGURES, num_resamples=0)
    expected = evaluate_sampler(noisy(digits, 20), digits, plan, num_classes=10)
    assert found == pytest.approx({metric.name: metric.value for metric in expected}, rel=1e-4)
    for end, values in (("floor", looker.floor), ("ceiling", looker.ceiling)):
        wanted = {metric.name: metric.protocol[end] for metric in expected}
        assert values == pytest.approx(wanted, rel=1e-4)
    worse = looker.look(noisy(digits, 60))
    assert all(better(name, found[name], worse[name]) for name in ("frechet_distance", "precision"))


def test_a_look_leaves_the_random_numbers_of_torch_alone(digits: ImageSet) -> None:
    def dropping(*given: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
        return torch.randint(256, (len(given[0]), 16, 16, 1), dtype=torch.uint8).numpy()

    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    Looker(digits).look(Sampler(dropping, z_dim=4, num_classes=0))
    assert torch.equal(torch.rand(4), expected)


def test_of_very_few_images_there_are_no_figures(tmp_path: Path, digits: ImageSet) -> None:
    few = dataclasses.replace(digits, images=digits.images[:8], labels=None, classes=())
    assert Looker(few).figures == ()
