import itertools
import sys

import pytest
import torch
from torch import nn

from models.networks import DCGAN, FAMILIES, MLP, Family, ImageShape, family
from models.networks.activations import LeakyReLU, ReLU
from models.networks.mlp import Dropout


def num_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def play(family_: Family, shape: ImageShape, num: int = 3):
    """One pass of both players; returns image and logits after a backward pass."""
    torch.manual_seed(0)
    G, D = family_.generator(shape), family_.discriminator(shape)
    label = torch.arange(num) % shape.num_classes if shape.num_classes else None
    z = torch.randn(num, family_.z_dim)
    img = G(z, label)
    logits = D(img, label)
    logits.sum().backward()
    for network in (G, D):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
    return img, logits


def test_the_articles_perceptrons():
    shape = ImageShape(resolution=28, channels=1)
    G, D = MLP().generator(shape), MLP().discriminator(shape)
    assert num_parameters(G) == 100 * 256 + 256 + 256 * 784 + 784 == 227_344
    assert num_parameters(D) == 784 * 256 + 256 + 256 * 1 + 1 == 201_217
    assert [type(layer) for layer in G.layers] == [nn.Linear, ReLU, nn.Linear, nn.Tanh]
    assert [type(layer) for layer in D.layers] == [*(nn.Linear, LeakyReLU, Dropout, nn.Linear)]
    assert D.layers[1](torch.tensor(-1.0)).item() == pytest.approx(-0.2)
    assert D.layers[2].share == 0.3


@pytest.mark.parametrize(("resolution", "channels"), [(28, 1), (7, 3), (1, 1)])
def test_mlp_shapes(resolution, channels):
    img, logits = play(MLP(hidden=8, z_dim=5), ImageShape(resolution=resolution, channels=channels))
    assert img.shape == (3, channels, resolution, resolution)
    assert img.abs().max() <= 1
    assert logits.shape == (3,)


@pytest.mark.parametrize(
    ("resolution", "channels", "num_classes", "d_norm"),
    list(itertools.product((16, 64, 256), (1, 3), (0, 1, 10), ("none", "batch"))),
)
def test_dcgan_shapes(resolution, channels, num_classes, d_norm):
    options = DCGAN(z_dim=5, ngf=4, ndf=4, embed_dim=2, d_norm=d_norm)
    shape = ImageShape(resolution=resolution, channels=channels, num_classes=num_classes)
    img, logits = play(options, shape)
    assert img.shape == (3, channels, resolution, resolution)
    assert img.abs().max() <= 1
    assert logits.shape == (3,)
    norms = [m for m in options.discriminator(shape).modules() if isinstance(m, nn.BatchNorm2d)]
    assert bool(norms) == (d_norm == "batch")


@pytest.mark.parametrize(
    ("resolution", "num_classes", "num_G", "num_D"),
    [
        # By hand for ngf = ndf = 2, z_dim 3, embed_dim 2, one channel. G: stem in*w*16 + 2w,
        # blocks wide*narrow*16 + 2*narrow, to_img 2*16 + 1. D: 16*2 + 2,
        # narrow*wide*16 + wide, head 16w + 1.
        (16, 0, 3 * 4 * 16 + 8 + (4 * 2 * 16 + 4) + 33, 34 + (2 * 4 * 16 + 4) + 65),
        (16, 10, 5 * 4 * 16 + 8 + (4 * 2 * 16 + 4) + 33 + 20, 34 + 132 + 65 + 640),
        (
            32,
            0,
            3 * 8 * 16 + 16 + (8 * 4 * 16 + 8) + (4 * 2 * 16 + 4) + 33,
            34 + 132 + (4 * 8 * 16 + 8) + 129,
        ),
    ],
)
def test_dcgan_parameter_counts(resolution, num_classes, num_G, num_D):
    options = DCGAN(z_dim=3, ngf=2, ndf=2, embed_dim=2)
    shape = ImageShape(resolution=resolution, channels=1, num_classes=num_classes)
    assert num_parameters(options.generator(shape)) == num_G
    assert num_parameters(options.discriminator(shape)) == num_D


def test_dcgan_is_initialised_as_in_the_paper():
    torch.manual_seed(0)
    G = DCGAN().generator(ImageShape(resolution=32, channels=3))
    weights = [m.weight for m in G.modules() if isinstance(m, nn.ConvTranspose2d)]
    for weight in weights:
        assert weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert abs(weight.mean().item()) < 0.002


@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_labels_change_what_the_players_do(player):
    options = DCGAN(z_dim=5, ngf=4, ndf=4)
    shape = ImageShape(resolution=16, channels=1, num_classes=2)
    torch.manual_seed(0)
    network = getattr(options, player)(shape).eval()
    given = torch.randn(1, 5) if player == "generator" else torch.randn(1, 1, 16, 16)
    zero, one = (network(given, torch.tensor([label])) for label in (0, 1))
    assert not torch.allclose(zero, one)


def test_an_image_in_eval_mode_does_not_depend_on_the_batch():
    torch.manual_seed(0)
    G = DCGAN(z_dim=5, ngf=4).generator(ImageShape(resolution=16, channels=1)).eval()
    z = torch.randn(4, 5)
    assert torch.allclose(G(z)[:1], G(z[:1]), atol=1e-6)


@pytest.mark.parametrize("resolution", [4, 28, 31, 512])
@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_dcgan_refuses_other_resolutions(resolution, player):
    shape = ImageShape(resolution=resolution, channels=1)
    with pytest.raises(ValueError, match=rf"resolution is {resolution}, .* 128, 256; set --data"):
        getattr(DCGAN(), player)(shape)


@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_mlp_refuses_labels(player):
    shape = ImageShape(resolution=28, channels=1, num_classes=10)
    with pytest.raises(ValueError, match="takes no labels, the data has 10 classes; choose"):
        getattr(MLP(), player)(shape)


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (MLP, {"z_dim": 0}, "z_dim is 0, must be at least 1"),
        (MLP, {"hidden": 0}, "hidden is 0, must be at least 1"),
        (MLP, {"dropout": 1.0}, r"dropout is 1\.0, must lie in \[0, 1\)"),
        (MLP, {"dropout": -0.1}, r"dropout is -0\.1"),
        (DCGAN, {"z_dim": -1}, "z_dim is -1"),
        (DCGAN, {"ngf": 0}, "ngf is 0"),
        (DCGAN, {"ndf": 0}, "ndf is 0"),
        (DCGAN, {"embed_dim": 0}, "embed_dim is 0"),
        (DCGAN, {"d_norm": "layer"}, r"d_norm is 'layer', allowed are 'none' and 'batch'"),
        (ImageShape, {"resolution": 0, "channels": 1}, "resolution is 0"),
        (ImageShape, {"resolution": 8, "channels": 2}, r"channels is 2, allowed are 1 .* and 4"),
        (ImageShape, {"resolution": 8, "channels": 1, "num_classes": -1}, "num_classes is -1"),
    ],
)
def test_bad_options_are_refused(cls, options, message):
    with pytest.raises(ValueError, match=message):
        cls(**options)


def test_the_registry():
    assert FAMILIES["mlp"] is MLP
    assert FAMILIES["dcgan"] is DCGAN
    assert MLP.name == "mlp"
    with pytest.raises(ValueError, match="'mlp' is registered already"):
        family("mlp")(MLP)


def test_a_new_family_enters_by_decorator(monkeypatch):
    registry = {}
    monkeypatch.setattr(sys.modules["models.networks.family"], "FAMILIES", registry)

    @family("new")
    class New(Family):
        pass

    assert registry == {"new": New}
    for player in ("generator", "discriminator"):
        with pytest.raises(NotImplementedError):
            getattr(New(), player)(ImageShape(resolution=8, channels=1))


def test_dcgan_stops_doubling_at_eight_times() -> None:
    G = DCGAN(z_dim=5, ngf=2).generator(ImageShape(resolution=256, channels=1))
    widths = [m.in_channels for m in G.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert widths == [5, 16, 16, 16, 8, 4, 2]
