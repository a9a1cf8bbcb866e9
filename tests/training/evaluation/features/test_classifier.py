"""Features of a classifier: the same for the same data, kept in a cache, refused when damaged."""

import dataclasses

import numpy as np
import pytest
import torch

from training.data import DataConfig, load
from training.errors import EvaluationError
from training.evaluation.features import classifier
from training.evaluation.features.base import Source
from training.evaluation.features.classifier import classifier_features, num_training_images, train


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(classifier, "NUM_STEPS", 60)


@pytest.fixture(scope="module")
def digits():
    return load(DataConfig(resolution=8))


def test_it_learns_and_two_trainings_are_one(digits) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    network, accuracy = train(digits)
    assert torch.equal(torch.get_rng_state(), before)  # no draw of anybody else's
    torch.manual_seed(2)
    again, _ = train(digits)
    assert accuracy > 0.8
    pairs = zip(network.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_features_have_a_mean_square_of_one_and_give_the_same_classes(digits) -> None:
    network, accuracy = train(digits)
    with torch.no_grad():
        rows = network.body(digits.images.float() / 127.5 - 1)
        shown = network.head(rows).argmax(dim=1)
    assert float((rows**2).mean()) == pytest.approx(1, rel=0.05)
    assert float((shown == digits.labels).float().mean()) == pytest.approx(accuracy, abs=0.1)


def test_the_description_is_the_networks_own(digits) -> None:
    other = dataclasses.replace(digits, images=255 - digits.images, fingerprint="another")
    first, second, third = (
        classifier_features(Source(image_set=data)) for data in (digits, digits, other)
    )
    assert first.description == second.description != third.description
    assert "sha256 " in first.description
    rows = first.run(digits.images[:5])
    assert rows.shape == (5, first.num_features)
    assert np.array_equal(rows, second.run(digits.images[:5]))


def test_the_cache_gives_the_very_network(digits, tmp_path, monkeypatch) -> None:
    source = Source(image_set=digits, cache=tmp_path / "cache")
    first = classifier_features(source)
    monkeypatch.setattr(classifier, "train", lambda _: pytest.fail("trained again"))
    second = classifier_features(source)
    assert first.description == second.description
    assert np.array_equal(first.run(digits.images[:5]), second.run(digits.images[:5]))
    other = dataclasses.replace(digits, content="of other data")
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        classifier_features(dataclasses.replace(source, image_set=other))


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_a_damaged_cache_is_named(digits, tmp_path, content) -> None:
    classifier_features(Source(image_set=digits, cache=tmp_path))
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    with pytest.raises(EvaluationError, match=rf"{file.name}.*delete the file"):
        classifier_features(Source(image_set=digits, cache=tmp_path))


def test_a_cache_that_can_not_be_written_is_named(digits, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EvaluationError, match=r"cache is .*choose another with --cache"):
        classifier_features(Source(image_set=digits, cache=tmp_path / "file" / "in"))


def test_four_fifths_are_trained_on(digits) -> None:
    assert num_training_images(digits) == 1437
