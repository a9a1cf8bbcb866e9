import torch

from models.networks import DCGAN, R3GAN, ImageShape, Progressive
from training.initialization import INITIALIZATIONS

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


def test_kaiming_leaves_branches_closed_that_start_so() -> None:
    D = R3GAN(channel_base=512, channel_max=32, group_width=8).discriminator(SHAPE)
    closed = {name for name, value in D.named_parameters() if not value.any()}
    INITIALIZATIONS["kaiming"].apply(D)
    assert closed <= {name for name, value in D.named_parameters() if not value.any()}
    assert any("weight" in name for name in closed)


def test_kaiming_starts_with_all_labels_alike() -> None:
    D = DCGAN(ngf=4, ndf=4).discriminator(SHAPE)
    INITIALIZATIONS["kaiming"].apply(D)
    img = torch.randn(1, 1, 32, 32).expand(3, -1, -1, -1)
    logits = D(img, torch.arange(3))
    torch.testing.assert_close(logits, logits[:1].expand(3))


def test_kaiming_leaves_layers_that_scale_when_they_are_used() -> None:
    options = Progressive(z_dim=4, channel_base=64, channel_max=8)
    D = options.discriminator(ImageShape(resolution=16, channels=1))
    before = {name: value.clone() for name, value in D.state_dict().items()}
    INITIALIZATIONS["kaiming"].apply(D)
    assert all(torch.equal(value, before[name]) for name, value in D.state_dict().items())
