"""Products with the Jacobian against finite differences, for every family of networks."""

import pytest
import torch

from tests.models.networks.tiny import TINY, classes, inputs, players
from training.errors import StabilityError
from training.game.forward import Batch, rows_are_independent
from training.game.losses import Game
from training.game.regularizers import Term
from training.optim.unrolled import descent
from training.stability.analysis import require_derivative
from training.stability.closed_form.toy_games import ToyGame, dirac
from training.stability.field import VectorField, as_analysed, loss_on


def field_of(name: str, *terms: str, **options: object) -> VectorField:
    num_classes = classes(name)
    G, D = (as_analysed(each) for each in players(name, num_classes=num_classes))
    z, img, label = inputs(name, num_classes=num_classes)
    batch = Batch(real_img=img.double(), label=label, z=z.double(), key=7)
    parts = tuple(map(Term.parse, terms))
    game = Game("non-saturating", parts, joint=rows_are_independent(D))
    return VectorField(loss_on(game, batch, **options), G, D)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", TINY)
def test_products_agree_with_finite_differences_and_each_other(name: str) -> None:
    field = field_of(name, "r1=0.3")
    at = field.at()
    assert require_derivative(field, at) < 1e-5
    generator = torch.Generator().manual_seed(3)
    u, y = (torch.randn(field.size, generator=generator).double() for _ in range(2))
    assert torch.dot(y, at.jvp(u)).item() == pytest.approx(torch.dot(at.vjp(y), u).item(), rel=1e-9)


def test_what_g_sees_ahead_is_part_of_its_field() -> None:
    plain, ahead = (
        field_of("mlp"),
        field_of("mlp", unrolled_steps=2, unrolled_move=lambda: descent(0.5)),
    )
    assert require_derivative(ahead, ahead.at()) < 1e-5
    difference = ahead.at().value - plain.at().value
    assert ahead.part("G", difference).norm() > 1e-3 * plain.at().value.norm()
    assert ahead.part("D", difference).norm() == 0


def test_analysing_leaves_the_network_alone() -> None:
    G, _ = players("dcgan-batch-mbstd")
    before = {name: value.clone() for name, value in G.state_dict().items()}
    as_analysed(G)
    assert all(torch.equal(before[name], value) for name, value in G.state_dict().items())
    assert next(G.parameters()).dtype == torch.float32


@pytest.mark.parametrize(
    "game",
    [dirac("wgan-gp=1", objective="wasserstein"), dirac("dragan=1")],
    ids=["wgan-gp", "dragan"],
)
def test_a_kink_is_refused(game: ToyGame) -> None:
    field = game.field()
    with pytest.raises(StabilityError, match="kink"):
        require_derivative(field, field.at())
