import pytest
import torch
from torch import nn
from torch.func import functional_call

from models.networks import DCGAN, FAMILIES, ImageShape, Style, scale_in_use
from tests.models.networks.tiny import OF_IMAGES, TINY, classes
from training.optim.constraints import CONSTRAINTS, clip, spectral

SHAPE = ImageShape(resolution=16, channels=1, num_classes=3)


def make_D() -> nn.Module:
    torch.manual_seed(0)
    return DCGAN(ndf=4).discriminator(SHAPE)


def norms(network: nn.Module) -> list[float]:
    """The largest singular value of every weight as the network uses it."""
    return [
        torch.linalg.matrix_norm(module.weight.flatten(1), 2).item() * scale_in_use(module)
        for module in network.modules()
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.Embedding))
    ]


@pytest.mark.parametrize("target", [1.0, 2.5])
def test_every_layer_gets_the_norm_that_was_asked_for(target: float) -> None:
    D = make_D()
    spectral(D, target)
    for _ in range(200):
        CONSTRAINTS["spectral"].apply(D, target)
    assert norms(D) == pytest.approx([target] * 4, rel=1e-3)


@pytest.mark.parametrize("family", [n for n, cls in OF_IMAGES.items() if not cls.closed_branches])
def test_what_is_bounded_is_the_weight_that_acts(family: str) -> None:
    """On layers of equalised rate the stored weight was bounded, and D's logits spread 1e-12."""
    shape = ImageShape(resolution=16, channels=1, num_classes=classes(family))
    torch.manual_seed(0)
    D = TINY[family].discriminator(shape)
    constraint = CONSTRAINTS["spectral"]
    assert constraint.install is not None
    constraint.install(D, 1.0)
    for _ in range(100):
        constraint.apply(D, 1.0)
    assert norms(D) == pytest.approx([1.0] * len(norms(D)), rel=1e-2)
    D = TINY[family].discriminator(shape)
    clip(D, 0.001)
    for module in D.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.Embedding)):
            largest = module.weight.abs().max().item() * scale_in_use(module)
            assert largest == pytest.approx(0.001, rel=1e-5)
            assert largest <= 0.001 * (1 + 1e-6)


@pytest.mark.parametrize("name", ["spectral", "clip"])
def test_a_deep_d_of_equalised_rate_still_tells_images_apart(name: str) -> None:
    torch.manual_seed(0)
    shape = ImageShape(resolution=64, channels=3)
    D = Style(channel_base=512, channel_max=32).discriminator(shape)
    bound = {"spectral": 1.0, "clip": 0.1}[name]
    if (install := CONSTRAINTS[name].install) is not None:
        install(D, bound)
    CONSTRAINTS[name].apply(D, bound)
    assert D(torch.randn(8, 3, 64, 64)).std() > 1e-4


@pytest.mark.parametrize("family", [n for n, cls in FAMILIES.items() if cls.closed_branches])
def test_a_layer_at_0_has_no_norm(family: str) -> None:
    with pytest.raises(ValueError, match=r"spectral finds \d+ layers of D at 0"):
        spectral(TINY[family].discriminator(SHAPE), 1.0)


def test_the_norm_follows_weights_that_move() -> None:
    D = make_D()
    spectral(D, 1.0)
    with torch.no_grad():
        for parameter in D.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    before = norms(D)
    for _ in range(50):
        CONSTRAINTS["spectral"].apply(D, 1.0)
    assert max(abs(norm - 1) for norm in before) > 0.05
    assert norms(D) == pytest.approx([1.0] * 4, rel=1e-2)


def test_a_forward_pass_changes_nothing_and_is_a_function_of_the_parameters() -> None:
    """Power iteration inside forward would make the second pass another function."""
    D = make_D()
    spectral(D, 1.0)
    D.train()
    img, label = torch.randn(3, 1, 16, 16), torch.arange(3)
    before = {name: value.clone() for name, value in D.state_dict().items()}
    first, second = D(img, label), D(img, label)
    bound = functional_call(D, dict(D.named_parameters()), (img, label))
    assert torch.equal(first, second)
    assert torch.equal(first, bound)
    for name, value in D.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_gradient_is_the_papers() -> None:
    """Miyato et al. 2018, eq. 12: what lies along u v^T is taken out."""
    layer = nn.Linear(3, 2, bias=False).double()
    nn.init.normal_(layer.weight)
    network = nn.Sequential(layer)
    spectral(network, 1.0)
    for _ in range(200):
        CONSTRAINTS["spectral"].apply(network, 1.0)
    weight = layer.parametrizations.weight.original  # type: ignore[union-attr]
    x = torch.randn(4, 3, dtype=torch.float64)
    (found,) = torch.autograd.grad(network(x).sum(), weight)
    u, s, vh = torch.linalg.svd(weight.detach())
    plain = torch.ones(4, 2, dtype=torch.float64).T @ x
    along = (plain * weight.detach()).sum() / s[0]
    expected = (plain - along * torch.outer(u[:, 0], vh[0])) / s[0]
    torch.testing.assert_close(found, expected)


def test_a_network_without_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="spectral"):
        spectral(nn.ReLU(), 1.0)


def test_clipping_moves_only_what_is_outside() -> None:
    layer = nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.5, -0.005]]))
        layer.bias.fill_(-3)
    clip(layer, 0.01)
    assert layer.weight.tolist() == [[pytest.approx(0.01), pytest.approx(-0.005)]]
    assert layer.bias.item() == pytest.approx(-0.01)


@pytest.mark.parametrize("name", sorted(CONSTRAINTS))
def test_each_names_its_paper(name: str) -> None:
    assert "arXiv:" in CONSTRAINTS[name].paper
