"""What every family promises, asked of each of them."""

import copy
import itertools
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.func import functional_call

from models.networks import FAMILIES, Discriminator, Growing, ImageShape, Mapped
from tests.models.networks.tiny import OF_IMAGES, TINY, classes, inputs, players

BOUNDED = ("mlp", "maxout", "dcgan", "resnet", "vaegan")
GROWING = {"progressive"}
MIXING = {"dcgan-batch-mbstd", "progressive", "style"}
CASES = [
    (name, num_classes)
    for name, num_classes in itertools.product(TINY, (0, 3))
    if num_classes <= classes(name)
]
BATCH_NORMS = (nn.BatchNorm2d,)


def r1(D, img, label):
    """The gradient penalty's value, differentiable by D's parameters."""
    img = img.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(D(img, label).sum(), img, create_graph=True)
    return gradient.square().sum()


def mixes_rows(network):
    return any(
        getattr(module, "mixes_rows", False) or isinstance(module, BATCH_NORMS)
        for module in network.modules()
    )


def test_every_family_is_asked():
    assert {name.split("-")[0] for name in TINY} == set(OF_IMAGES)


def test_the_page_of_networks_says_how_large_they_are():
    page = (Path(__file__).parents[3] / "docs" / "networks.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| [^|]* \| ([\d.]+) / ([\d.]+) \|", page, re.M)
    assert {name for name, *_ in rows} == set(OF_IMAGES)
    with torch.device("meta"):
        for name, *written in rows:
            shape = ImageShape(resolution=32, channels=3)
            options = FAMILIES[name]()
            pair = options.generator(shape), options.discriminator(shape)
            counts = [sum(p.numel() for p in player.parameters()) / 1e6 for player in pair]
            assert [f"{count:.2f}" for count in counts] == written, name


@pytest.mark.parametrize("resolution", [8, 16, 32, 64, 128, 256])
@pytest.mark.parametrize(("name", "num_classes"), CASES)
def test_shapes(name, num_classes, resolution):
    for channels in (1, 3):
        size = {"resolution": resolution, "channels": channels, "num_classes": num_classes}
        G, D = players(name, **size)
        z, _, label = inputs(name, 2, **size)
        with torch.no_grad():
            img = G(z, label)
            logits = D(img, label)
        assert img.shape == (2, channels, resolution, resolution)
        assert logits.shape == (2,)
        assert img.dtype == logits.dtype == torch.float32
        assert img.isfinite().all()
        assert logits.isfinite().all()
        if name.split("-")[0] in BOUNDED:
            assert img.abs().max() <= 1


@pytest.mark.parametrize(("name", "num_classes"), CASES)
def test_gradients_reach_every_parameter(name, num_classes):
    # In evaluation: batch norm in training takes out the biases before it.
    G, D = (player.eval() for player in players(name, num_classes=num_classes))
    z, img, label = inputs(name, 12, num_classes=num_classes)
    missing = {}
    for progress in (0.0, 0.2, 0.3, 0.45, 1.0) if isinstance(G, Growing) else (1.0,):
        for network in (G, D):
            if isinstance(network, Growing):
                network.set_progress(progress)
        losses = {G: D(G(z, label), label).square().sum()}
        losses[D] = D(img, label).square().sum() + r1(D, img, label)
        for network, loss in losses.items():
            found = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
            for (key, _), gradient in zip(network.named_parameters(), found, strict=True):
                if gradient is None:
                    missing.setdefault((network, key), True)
                    continue
                assert gradient.isfinite().all(), key
                assert gradient.abs().max() > 0, key
                missing[network, key] = False
    # The encoder is no part of G(z); its own test is in test_vaegan.py.
    assert not [key for (_, key), none in missing.items() if none and not key.startswith("encoder")]


@pytest.mark.parametrize(("name", "num_classes"), CASES)
def test_a_penalty_on_gradients_has_the_right_gradient(name, num_classes):
    """Against a difference quotient, in float64, along one random direction of all weights."""
    _, D = players(name, num_classes=num_classes)
    D = D.double().eval()
    _, img, label = inputs(name, num_classes=num_classes)
    img = img.double()
    parameters = list(D.parameters())
    found = torch.autograd.grad(r1(D, img, label), parameters, allow_unused=True)
    generator = torch.Generator().manual_seed(4)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    slope = sum((g * d).sum() for g, d in zip(found, direction, strict=True) if g is not None)
    values = []
    for step in (1e-7, -1e-7):
        moved = copy.deepcopy(D)
        with torch.no_grad():
            for parameter, d in zip(moved.parameters(), direction, strict=True):
                parameter += step * d
        values.append(r1(moved, img, label))
    quotient = (values[0] - values[1]) / 2e-7
    assert slope.item() == pytest.approx(quotient.item(), rel=1e-4)
    assert abs(slope) > 0


@pytest.mark.parametrize("name", [name for name in TINY if classes(name)])
def test_a_label_changes_what_the_players_do(name):
    G, D = (player.eval() for player in players(name, num_classes=2))
    z, img, _ = inputs(name, 1)
    zero, one = torch.tensor([0]), torch.tensor([1])
    assert not torch.allclose(G(z, zero), G(z, one), atol=1e-3)
    assert not torch.allclose(D(img, zero), D(img, one), atol=1e-3)


@pytest.mark.parametrize(("name", "num_classes"), CASES)
def test_rows_mix_only_where_a_layer_says_so(name, num_classes):
    G, D = players(name, num_classes=num_classes)
    z, img, label = inputs(name, 8, num_classes=num_classes)
    first = None if label is None else label[:1]
    assert mixes_rows(D) == (name in MIXING)
    with torch.no_grad():
        alone, together = G.eval()(z[:1], first), G(z, label)[:1]
        assert torch.allclose(alone, together, atol=1e-5)
        alone, together = D.eval()(img[:1], first), D(img, label)[:1]
        assert torch.allclose(alone, together, atol=1e-5) == (name not in MIXING)


@pytest.mark.parametrize("name", TINY)
def test_a_player_is_a_function_of_its_parameters(name):
    size = {"num_classes": classes(name)}
    G, D = players(name, **size)
    z, img, label = inputs(name, **size)
    for network, given in ((G, z), (D, img)):
        others = {key: value.detach() * 1.5 for key, value in network.named_parameters()}
        buffers = {key: value.clone() for key, value in network.named_buffers()}
        twin = copy.deepcopy(network)
        twin.load_state_dict({**network.state_dict(), **others})
        torch.manual_seed(7)
        bound = functional_call(network, {**others, **buffers}, (given, label))
        torch.manual_seed(7)
        assert torch.equal(bound, twin(given, label))
        before = copy.deepcopy(network.state_dict())
        torch.manual_seed(7)
        network(given, label)
        changed = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
        assert all(key.rsplit(".")[-1].startswith(("running_", "num_")) for key in changed)


@pytest.mark.parametrize("name", TINY)
def test_narrow_arithmetic_and_the_other_memory_format(name):
    size = {"channels": 3, "num_classes": classes(name)}
    G, D = (player.eval() for player in players(name, **size))
    z, img, label = inputs(name, **size)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow, logits = G(z, label), D(img, label)
        penalty = r1(D, img, label)
    assert narrow.dtype == logits.dtype == torch.float32
    wide = G(z, label)
    assert torch.nn.functional.cosine_similarity(narrow.flatten(), wide.flatten(), 0) > 0.98
    penalty.backward()
    assert all(p.grad.isfinite().all() for p in D.parameters() if p.grad is not None)
    expected = D(img, label)
    last = torch.channels_last
    assert torch.allclose(D.to(memory_format=last)(img.to(memory_format=last), label), expected)
    assert torch.allclose(G.to(memory_format=last)(z, label), wide, atol=1e-5)


@pytest.mark.parametrize(("name", "num_classes"), CASES)
def test_features_lead_to_the_logits(name, num_classes):
    _, D = players(name, num_classes=num_classes)
    D.eval()
    _, img, label = inputs(name, num_classes=num_classes)
    assert isinstance(D, Discriminator)
    logits, features = D(img, label, with_features=True)
    assert features.shape == (6, features[0].numel())
    assert torch.equal(logits, D(img, label))
    assert torch.equal(features, D.features(img, label))
    assert torch.equal(logits, D.logits(features, label))


def test_who_grows_and_who_maps():
    for name in TINY:
        G, D = players(name)
        assert isinstance(G, Growing) == isinstance(D, Growing) == (name in GROWING)
        assert isinstance(G, Mapped) == (name == "style")


DOUBLING = [name for name in TINY if classes(name)]
LARGE = ("progressive", "r3gan", "style")


@pytest.mark.parametrize("resolution", [4, 28, 48, 2048])
@pytest.mark.parametrize("name", DOUBLING)
def test_other_resolutions_are_refused_by_name(name, resolution):
    shape = ImageShape(resolution=resolution, channels=1)
    family, most = name.split("-")[0], 1024 if name.split("-")[0] in LARGE else 256
    for player in (TINY[name].generator, TINY[name].discriminator):
        with pytest.raises(
            ValueError,
            match=rf"resolution is {resolution}, the family '{family}' makes 8, .* {most}; set --d",
        ):
            player(shape)


@pytest.mark.parametrize("resolution", [512, 1024])
@pytest.mark.parametrize("name", DOUBLING)
def test_who_makes_large_images(name, resolution):
    family = FAMILIES[name.split("-")[0]]()
    if family.name in LARGE:
        family.check(ImageShape(resolution=resolution, channels=3))
    else:
        with pytest.raises(ValueError, match=rf"resolution is {resolution}, .* 128, 256; set"):
            family.check(ImageShape(resolution=resolution, channels=3))


@pytest.mark.parametrize("size", [(16, 24), (32, 8)])
@pytest.mark.parametrize("name", TINY)
def test_rectangles(name, size):
    num_classes = classes(name, 2)
    shape = {"resolution": size, "channels": 3, "num_classes": num_classes}
    G, D = players(name, **shape)
    label = torch.tensor([0, 1]) if num_classes else None
    img = G(torch.randn(2, TINY[name].z_dim), label)
    assert img.shape == (2, 3, *size)
    assert D(img, label).shape == (2,)


@pytest.mark.parametrize(
    ("size", "near"), [((64, 90), "96x64"), ((90, 64), "64x96"), ((16, 18), "16x16")]
)
def test_a_rectangle_that_is_not_reached_names_the_nearest(size, near):
    with pytest.raises(ValueError, match=rf"{size[1]}x{size[0]}, .*WIDTHxHEIGHT.*; {near} is the"):
        TINY["dcgan"].check(ImageShape(resolution=size, channels=3))


@pytest.mark.parametrize("size", [(8, 40), (64, 320), (60, 96), (4, 8)])
def test_rectangles_are_bounded(size):
    with pytest.raises(ValueError, match=r"up to 4 times as long and up to 256; set --data"):
        TINY["dcgan"].check(ImageShape(resolution=size, channels=3))


def test_equal_sides_are_a_square():
    assert ImageShape(resolution=(8, 8), channels=1) == ImageShape(resolution=8, channels=1)
    assert ImageShape(resolution=(64, 96), channels=1).start == (4, 6)


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("resnet", {"ngf": 0}, "ngf is 0, must be at least 1"),
        ("resnet", {"d_norm": "batch"}, "d_norm is 'batch', allowed are 'none' and 'layer'"),
        ("resnet", {"d_pool": "max"}, "d_pool is 'max', allowed are 'sum' and 'mean'"),
        ("resnet", {"g_label": "x"}, "g_label is 'x', allowed are 'norm' and 'concat'"),
        ("progressive", {"growth": 1.0}, r"growth is 1\.0, must lie in \[0, 1\)"),
        ("progressive", {"growth": float("nan")}, "growth is nan"),
        ("progressive", {"mbstd_group": 1}, "mbstd_group is 1, must be at least 2"),
        ("progressive", {"channel_base": 0}, "channel_base is 0"),
        ("r3gan", {"num_blocks": 0}, "num_blocks is 0"),
        ("r3gan", {"z_dim": 0}, "z_dim is 0"),
        ("style", {"mixing": 1.5}, r"mixing is 1\.5, must lie in \[0, 1\]"),
        ("style", {"w_dim": 0}, "w_dim is 0"),
        ("style", {"mapping_layers": 0}, "mapping_layers is 0"),
        ("vaegan", {"nef": 0}, "nef is 0"),
        ("vaegan", {"d_norm": "layer"}, "d_norm is 'layer'"),
    ],
)
def test_bad_options_are_refused(family, options, message):
    with pytest.raises(ValueError, match=message):
        FAMILIES[family](**options)
