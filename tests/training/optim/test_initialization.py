import pytest
import torch

from models.networks import DCGAN, ImageShape
from tests.models.networks.tiny import OF_IMAGES, TINY, classes
from training.optim.initialization import INITIALIZATIONS, initialise

SHAPE = ImageShape(resolution=32, channels=1, num_classes=3)


def features_of(init: str) -> torch.Tensor:
    torch.manual_seed(0)
    D = DCGAN(ngf=16, ndf=16).discriminator(SHAPE)
    INITIALIZATIONS[init].apply(D)
    features: torch.Tensor = D.layers(torch.randn(64, 1, 32, 32))  # type: ignore[operator]
    return features


def test_kaiming_keeps_the_scale_that_the_family_loses() -> None:
    assert 0.25 < features_of("kaiming").square().mean() < 1.5
    assert features_of("family").square().mean() < 0.01


@pytest.mark.parametrize("family", [n for n, cls in OF_IMAGES.items() if cls.initialises])
def test_a_familys_own_initialisation_stays_whatever_the_recipe_says(family: str) -> None:
    """`folder --network r3gan` kept kaiming: R3GAN's logits were 3.5 times too large."""
    shape = ImageShape(resolution=16, channels=1, num_classes=classes(family))
    options = TINY[family]
    D = options.discriminator(shape)
    before = {name: value.clone() for name, value in D.state_dict().items()}
    initialise(D, options, "kaiming")
    assert all(torch.equal(value, before[name]) for name, value in D.state_dict().items())


def test_a_family_without_one_takes_the_recipes() -> None:
    options = TINY["dcgan"]
    D = options.discriminator(SHAPE)
    before = D.layers[0].weight.clone()  # type: ignore[index,union-attr]
    initialise(D, options, "kaiming")
    assert not torch.equal(before, D.layers[0].weight)  # type: ignore[index,union-attr]


def test_kaiming_starts_with_all_labels_alike() -> None:
    D = DCGAN(ngf=4, ndf=4).discriminator(SHAPE)
    INITIALIZATIONS["kaiming"].apply(D)
    img = torch.randn(1, 1, 32, 32).expand(3, -1, -1, -1)
    logits = D(img, torch.arange(3))
    torch.testing.assert_close(logits, logits[:1].expand(3))
