"""Products with the Jacobian against finite differences, for every family of networks."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.models.networks.tiny import TINY, classes, inputs, players
from training.errors import StabilityError
from training.game.forward import Batch, rows_are_independent
from training.game.losses import Game
from training.game.regularizers import Term
from training.optim.unrolled import descent
from training.stability import opening
from training.stability.closed_form.toy_games import Point, ToyGame, dirac
from training.stability.derivative import require_derivative
from training.stability.field import Linearization, VectorField, as_analysed, loss_on
from training.stability.opening import difference_on
from training.stability.run_game import RunGame


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
    ("game", "name"),
    [
        (dirac("wgan-gp=1", objective="wasserstein"), "wgan-gp"),
        (dirac("dragan=1"), "dragan"),
    ],
    ids=["wgan-gp", "dragan"],
)
def test_a_kink_is_refused(game: ToyGame, name: str) -> None:
    field = game.field()
    with pytest.raises(StabilityError, match="kink here, at a border"):
        require_derivative(field, field.at(), ["r1"])
    with pytest.raises(StabilityError, match=f"one-centred penalties .{name}. have"):
        require_derivative(field, field.at(), ["r1", name])


class Edge(nn.Module):
    """D(x) = psi relu(x + beta): with R1, the field jumps by psi where G or data stand at -beta."""

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.psi = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
        self.beta = nn.Parameter(torch.tensor(beta, dtype=torch.float64))

    def forward(self, img: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        return self.psi * (img.flatten(1).sum(1) + self.beta).relu()


@pytest.mark.parametrize("beta", [3e-6, -3e-6, 1e-3])
def test_a_border_beside_the_place_is_no_kink(beta: float) -> None:
    """A difference of 1e-5 crosses it; the place itself has a Jacobian."""
    field = replace(dirac("r1=0.3"), G=lambda: Point(0.5), D=lambda: Edge(beta)).field()
    assert require_derivative(field, field.at(), ["r1"]) < 1e-3


def test_a_border_at_the_place_is_a_kink() -> None:
    field = replace(dirac("r1=0.3"), G=lambda: Point(0.5), D=lambda: Edge(0.0)).field()
    with pytest.raises(StabilityError, match="kink here, at a border"):
        require_derivative(field, field.at(), ["r1"])


def test_each_batch_is_compared(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    game = RunGame.open(tiny_run)
    batches = list(game.batches(3))
    assert difference_on(game, batches) < 1e-3
    compare = opening.require_derivative

    def kinked_on_the_second(
        field: VectorField, at: Linearization, penalties: list[str], where: str
    ) -> float:
        return compare(field if "batch 2" not in where else Jumping(), at, penalties, where)  # type: ignore[arg-type]

    class Jumping:
        size, place = game.field(batches[0]).size, game.field(batches[0]).place

        def __call__(self, place: torch.Tensor) -> torch.Tensor:
            return torch.sign(place - self.place)

    monkeypatch.setattr(opening, "require_derivative", kinked_on_the_second)
    with pytest.raises(StabilityError, match="on batch 2 of 3"):
        difference_on(game, batches)
