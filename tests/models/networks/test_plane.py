"""The perceptrons of points keep what every family promises (test_contract.py asks the others)."""

import pytest
import torch
from torch.func import functional_call

from models.networks import ImageShape, Plane

POINTS = ImageShape(resolution=(1, 2), channels=1)
FORMS = {
    "plain": Plane(width_G=8, width_D=8),
    "leaky": Plane(width_G=8, width_D=8, activation="leaky-relu", depth_D=3),
    "tanh": Plane(z_dim=5, width_G=8, width_D=8, activation="tanh", init="orthogonal"),
    "glorot": Plane(z_dim=3, width_G=8, width_D=8, depth_G=4, depth_D=4, init="glorot"),
    "pacgan": Plane(width_G=8, width_D=6, batch_norm_G=True, maxout_D=3, init="normal"),
}


def players(name: str, *, packing: int = 1) -> tuple[torch.nn.Module, torch.nn.Module]:
    torch.manual_seed(0)
    return FORMS[name].generator(POINTS), FORMS[name].discriminator(POINTS.packed(packing))


@pytest.mark.parametrize("name", FORMS)
def test_points_in_points_out_whose_every_weight_has_a_say(name: str) -> None:
    G, D = (player.double().eval() for player in players(name))
    img = G(torch.randn(6, FORMS[name].z_dim, dtype=torch.float64))
    assert img.shape == (6, 1, 1, 2)
    logits = D(img)
    assert logits.shape == (6,)
    leaf = img.detach().requires_grad_()
    (slope,) = torch.autograd.grad(D(leaf).sum(), leaf, create_graph=True)
    losses = {G: logits.square().sum(), D: D(leaf).square().sum() + slope.square().sum()}
    for network, loss in losses.items():
        parameters = list(network.parameters())
        for gradient in torch.autograd.grad(loss, parameters, retain_graph=True):
            assert gradient.abs().max() > 0


@pytest.mark.parametrize("name", FORMS)
def test_a_penalty_has_the_right_gradient(name: str) -> None:
    """Against a difference quotient along one random direction of all of D's weights."""
    D = players(name)[1].double()
    img = torch.randn(6, 1, 1, 2, dtype=torch.float64)
    named = {key: value.detach() for key, value in D.named_parameters()}

    def penalty(weights: dict[str, torch.Tensor]) -> torch.Tensor:
        leaf = img.clone().requires_grad_()
        logits = functional_call(D, weights, (leaf,))
        (gradient,) = torch.autograd.grad(logits.sum(), leaf, create_graph=True)
        return gradient.square().sum()

    leaves = {key: value.clone().requires_grad_() for key, value in named.items()}
    found = torch.autograd.grad(
        penalty(leaves), list(leaves.values()), allow_unused=True, materialize_grads=True
    )
    along = {key: torch.randn_like(value) for key, value in named.items()}
    step = 1e-6
    ends = [
        penalty({key: value + sign * step * along[key] for key, value in named.items()})
        for sign in (1, -1)
    ]
    expected = ((ends[0] - ends[1]) / (2 * step)).item()
    product = sum((g * along[key]).sum() for key, g in zip(leaves, found, strict=True))
    assert float(product) == pytest.approx(expected, rel=1e-5, abs=1e-8)


def test_a_packed_d_is_wider_where_it_begins_and_nowhere_else() -> None:
    one, four = (players("plain", packing=num)[1] for num in (1, 4))
    pairs = zip(one.parameters(), four.parameters(), strict=True)
    differing = [(tuple(a.shape), tuple(b.shape)) for a, b in pairs if a.shape != b.shape]
    assert differing == [((8, 2), (8, 8))]


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        (ImageShape(resolution=8, channels=1), "resolution is 8, the family 'plane' makes points"),
        (ImageShape(resolution=(1, 2), channels=3), "makes points, 2x1 with 1 channel"),
        (ImageShape(resolution=(1, 2), channels=1, num_classes=2), "takes no labels"),
    ],
)
def test_images_and_labels_are_refused(shape: ImageShape, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Plane().generator(shape)


@pytest.mark.parametrize("options", [{"width_D": 0}, {"activation": "gelu"}, {"init": "ones"}])
def test_options_that_make_no_network_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Plane(**options)  # type: ignore[arg-type]
