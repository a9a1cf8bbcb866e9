"""A game as a flat vector field: v(w) = (-dL_G/dtheta, -dL_D/dpsi), w = (theta, psi) [n] float64.

The losses are the training's own (`training.game.losses.Game`) on a batch that is held, with all
its random draws. Products with the Jacobian are by reverse mode alone: J^T y is the gradient of v
by w, and J u the gradient of (J^T y)^T u by y, as J^T y is linear in y. Forward mode isn't used:
through batch norm, nested, it is silently wrong in torch (pytorch #196699). This module knows no
optimiser.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from training.game.forward import Batch, Bound
from training.game.losses import Game
from training.optim.unrolled import Steps, descent

PlayerLoss = Callable[[str, Bound, Bound], Tensor]
"""(player, G, D) to the scalar that the player, G or D, minimises."""

PLAYERS = ("G", "D")
"""In the order of their parameters in w."""


def loss_on(
    game: Game,
    batch: Batch,
    *,
    unrolled_steps: int = 0,
    unrolled_move: Callable[[], Steps] = lambda: descent(0.0),
) -> PlayerLoss:
    """Returns the losses of a game on one batch, as the training computes them.

    unrolled_steps: steps of D that G looks ahead (`Game.unrolled`). unrolled_move: returns their
    optimiser, anew for each loss, as one may remember the steps that it took.
    """

    def loss(player: str, G: Bound, D: Bound) -> Tensor:
        if player == "D" or not unrolled_steps:
            return game.losses(player, G, D, batch).total
        fake_img = game.generate(G, batch)
        ahead = game.unrolled(G, D, batch, fake_img, steps=unrolled_steps, move=unrolled_move())
        return game.losses(player, G, ahead, batch, fake_img).total

    return loss


def as_analysed(network: nn.Module) -> nn.Module:
    """Returns a copy in float64, computing as in training, that has all derivatives.

    torch's batch norm has two, and a penalty on D's gradient needs a third. It also changes its
    running statistics with every pass, which only the exported G uses.
    """
    network = copy.deepcopy(network).double()
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm):
                setattr(module, name, _PlainBatchNorm(child))
    return network


class _PlainBatchNorm(nn.Module):
    """Batch norm by the batch's own statistics, in operations that have all derivatives."""

    mixes_rows = True

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        self.weight: nn.Parameter | None = norm.weight
        self.bias: nn.Parameter | None = norm.bias
        self.eps = norm.eps

    def forward(self, x: Tensor) -> Tensor:
        others = [0, *range(2, x.dim())]
        mean = x.mean(others, keepdim=True)
        variance = (x - mean).square().mean(others, keepdim=True)
        x = (x - mean) / (variance + self.eps).sqrt()
        if self.weight is None or self.bias is None:
            return x
        shape = (1, -1, *(1 for _ in range(2, x.dim())))
        return x * self.weight.view(shape) + self.bias.view(shape)


@dataclass(frozen=True)
class _Player:
    network: nn.Module
    shapes: Mapping[str, torch.Size]

    @classmethod
    def of(cls, network: nn.Module) -> "_Player":
        named = network.named_parameters()
        return cls(network, {name: each.shape for name, each in named if each.requires_grad})

    @property
    def size(self) -> int:
        return sum(shape.numel() for shape in self.shapes.values())

    @property
    def place(self) -> Tensor:
        """The parameters as one vector, a copy."""
        named = dict(self.network.named_parameters())
        return torch.cat([named[name].detach().double().flatten() for name in self.shapes])

    def bound(self, vector: Tensor) -> Bound:
        """The network with these parameters instead of its own."""
        parts = torch.split(vector, [shape.numel() for shape in self.shapes.values()])
        named = zip(self.shapes.items(), parts, strict=True)
        return Bound(self.network, {name: part.view(shape) for (name, shape), part in named})


class VectorField:
    """The field of two players' losses; parameters that don't train are constants."""

    def __init__(self, loss: PlayerLoss, G: nn.Module, D: nn.Module) -> None:
        """G, D: float64 (`as_analysed`); their weights are where the game stands."""
        self._loss = loss
        self._G, self._D = _Player.of(G), _Player.of(D)
        self.sizes = {"G": self._G.size, "D": self._D.size}
        self.place = torch.cat([self._G.place, self._D.place])

    @property
    def size(self) -> int:
        """Number of parameters of both players, n."""
        return len(self.place)

    def part(self, player: str, vector: Tensor) -> Tensor:
        """Returns a player's part of a vector [n] in the order (theta, psi)."""
        first = self.sizes["G"]
        return vector[:first] if player == "G" else vector[first:]

    def __call__(self, place: Tensor) -> Tensor:
        """Computes v at a place. place: [n] float64. Returns [n], without a graph."""
        w = place.detach().requires_grad_()
        return torch.cat([self._gradient(w, player, graph=False) for player in PLAYERS]).detach()

    def at(self, place: Tensor | None = None) -> "Linearization":
        """Linearises at a place [n], where the game stands if None. Keeps the graphs."""
        w = (self.place if place is None else place).detach().clone().requires_grad_()
        return Linearization(
            w, {player: self._gradient(w, player, graph=True) for player in PLAYERS}
        )

    def _gradient(self, w: Tensor, player: str, *, graph: bool) -> Tensor:
        G, D = self._G.bound(self.part("G", w)), self._D.bound(self.part("D", w))
        own = (G if player == "G" else D).parameters()
        loss = self._loss(player, G, D)
        gradients = torch.autograd.grad(loss, own, create_graph=graph, materialize_grads=True)
        return -torch.cat([each.flatten() for each in gradients])


class Linearization:
    """v near a place: its value there, and products with its Jacobian J [n, n]."""

    def __init__(self, w: Tensor, parts: Mapping[str, Tensor]) -> None:
        """w: [n], a leaf. parts: each player's part of v, with its graph."""
        self._w, self._parts = w, parts
        self.value = torch.cat([parts[player].detach() for player in PLAYERS])
        self.sizes = {player: len(parts[player]) for player in PLAYERS}
        self._dual: dict[str, tuple[Tensor, Tensor]] = {}

    @property
    def size(self) -> int:
        """Number of parameters of both players, n."""
        return len(self.value)

    def jvp_of(self, player: str, u: Tensor) -> Tensor:
        """Returns the player's rows of J u. u: [n] float64."""
        if player not in self._dual:
            y = torch.zeros_like(self._parts[player], requires_grad=True)
            self._dual[player] = (y, self._pullback(player, y, graph=True))
        y, pulled = self._dual[player]
        return _gradient(pulled, y, u)

    def jvp(self, u: Tensor) -> Tensor:
        """Returns J u. u: [n] float64."""
        return torch.cat([self.jvp_of(player, u) for player in PLAYERS])

    def vjp(self, u: Tensor) -> Tensor:
        """Returns J^T u. u: [n] float64."""
        parts = torch.split(u, [self.sizes[player] for player in PLAYERS])
        pulled = [self._pullback(player, part) for player, part in zip(PLAYERS, parts, strict=True)]
        return pulled[0] + pulled[1]

    def own_block(self, player: str, u: Tensor) -> Tensor:
        """Returns H u, H the Hessian of the player's loss by its own parameters, u of its size."""
        whole = torch.zeros_like(self.value)
        whole[self.rows(player)] = u
        return -self.jvp_of(player, whole)

    def rows(self, player: str) -> slice:
        """Where the player's part of a vector [n] lies."""
        first = self.sizes["G"]
        return slice(0, first) if player == "G" else slice(first, None)

    def _pullback(self, player: str, y: Tensor, *, graph: bool = False) -> Tensor:
        return _gradient(self._parts[player], self._w, y, graph=graph)


def _gradient(output: Tensor, leaf: Tensor, along: Tensor, *, graph: bool = False) -> Tensor:
    """The gradient of output^T along by the leaf; zeros where they have nothing to do."""
    if not output.requires_grad:
        return torch.zeros_like(leaf)
    (found,) = torch.autograd.grad(
        output, leaf, along, create_graph=graph, retain_graph=True, materialize_grads=True
    )
    return found
