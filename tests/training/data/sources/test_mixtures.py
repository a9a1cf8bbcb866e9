"""Mixtures in the plane as datasets: exact for networks, as bytes for everybody else."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from models.networks import Plane
from models.networks.plane import SPAN
from training.cli.command import parse
from training.data import Batches, DataConfig, ImageSet, load
from training.data.sources.mixtures import MIXTURES, NUM_POINTS
from training.errors import ConfigError
from training.evaluation.metrics.modes import modes
from training.export.onnx_graphs import UInt8Generator


def config(name: str, **options: object) -> DataConfig:
    return DataConfig(**{"dataset": name, "resolution": "2x1", "conditional": False, **options})  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=sorted(MIXTURES))
def points(request: pytest.FixtureRequest) -> ImageSet:
    return load(config(request.param))


def test_networks_see_exact_points_of_unit_deviation(points: ImageSet) -> None:
    mixture = MIXTURES[points.name]
    batch, label = Batches(points, batch_size=5000, seed=0).at(0)
    assert label is None
    assert batch.shape == (5000, 1, 1, 2)
    assert batch.std().item() == pytest.approx(1, abs=0.02)
    found = modes(batch.numpy().reshape(-1, 2) * mixture.unit, mixture)
    assert found.caught == len(mixture.centres)
    assert found.good_share == pytest.approx(1 - np.exp(-4.5), abs=0.005)
    assert len(torch.unique(batch)) > 9000  # bytes would be 256 values
    assert len(points) == NUM_POINTS


def test_bytes_keep_all_but_a_rounding_of_them(points: ImageSet) -> None:
    mixture = MIXTURES[points.name]
    assert points.exact is not None
    rounded = mixture.coordinates(points.images)
    exact = points.exact.numpy().reshape(-1, 2) * mixture.unit
    assert np.abs(rounded - exact).max() <= SPAN * mixture.unit / 255 * 1.001
    assert modes(rounded, mixture).good_share > 0.98


def test_a_generator_of_points_makes_the_bytes_of_the_data(points: ImageSet) -> None:
    """The identity on the data's own points: what is exported means what the data means."""
    assert points.exact is not None
    G = Plane().generator(points.shape)
    G.layers = torch.nn.Identity()  # type: ignore[assignment]
    few = points.exact[:100]
    made = UInt8Generator(G)(few.flatten(1))
    assert torch.equal(made.permute(0, 3, 1, 2), points.images[:100])


def test_a_subset_and_the_fingerprint_are_of_the_exact_points(points: ImageSet) -> None:
    few = points.subset(10)
    assert points.exact is not None
    assert few.exact is not None
    assert torch.equal(few.exact[[0, -1]], points.exact[[0, -1]])
    assert torch.equal(points.seen(slice(0, 4)), points.exact[:4])
    # Points that only bytes can't tell apart are other data.
    assert points.fingerprint != hashlib.sha256(points.images.numpy().data).hexdigest()
    assert points.fingerprint == load(config(points.name)).fingerprint


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"resolution": 32}, "are 2x1 with 1 channel: start from the recipe 'ring-8'"),
        ({"channels": 3}, "are 2x1 with 1 channel"),
        ({"mirror": True}, "exchange x and y"),
        ({"conditional": True}, "has no classes"),
        ({"path": Path("mine.csv")}, "reads none: leave it out, or set --data.dataset points"),
    ],
)
def test_forms_that_points_cannot_have_are_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        config("ring-8", **options)


@pytest.mark.parametrize("words", [["--augment.policy", "ada"], ["--corruption", "noise=0.1"]])
def test_changes_of_images_are_refused(words: list[str]) -> None:
    with pytest.raises(ConfigError, match="changes images"):
        parse(["ring-8", *words])


@pytest.mark.parametrize("maxout", [0, 3])
@pytest.mark.parametrize("init", ["uniform", "he", "orthogonal", "normal"])
def test_every_form_of_the_perceptrons_maps_points_to_points(maxout: int, init: str) -> None:
    shape = load(config("ring-8")).subset(2).shape
    family = Plane(width_G=8, width_D=8, maxout_D=maxout, batch_norm_G=True, init=init)  # type: ignore[arg-type]
    img = family.generator(shape)(torch.randn(6, 2))
    assert img.shape == (6, 1, 1, 2)
    assert family.discriminator(shape)(img).shape == (6,)
    assert family.discriminator(shape.packed(2))(img.reshape(3, 2, 1, 2)).shape == (3,)
