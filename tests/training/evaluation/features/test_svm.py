import pytest
import torch

from training.data import ImageSet
from training.evaluation.features.svm import SvmClassifier, features


@pytest.mark.parametrize(
    ("labels", "possible"), [([0] * 20, False), ([0, 1, 0], False), ([0, 1] * 10, True)]
)
def test_too_little_data_trains_none(labels, possible) -> None:
    images = torch.zeros(len(labels), 1, 8, 8, dtype=torch.uint8)
    data = ImageSet("small", images, torch.tensor(labels), ("a", "b"), "", ())
    assert SvmClassifier.possible(data) is possible
    assert not SvmClassifier.possible(ImageSet("small", images, None, None, "", ()))


def test_features_are_means_of_blocks() -> None:
    images = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    images[0, 0, :2, :2] = torch.tensor([[0, 255], [255, 255]], dtype=torch.uint8)
    found = features(images)
    assert found.shape == (1, 64)
    assert found[0, 0] == pytest.approx(0.75)
    assert found[0, 1:].max() == 0
