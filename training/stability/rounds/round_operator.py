"""One whole round of the linearised game as a linear map: who moves when, and by which optimiser.

The round is played by the training's own update (`training.game.updates`), of which this is another
`TrainStep`: gradients are products with the Jacobian, moves are frozen optimisers. Its eigenvalues
mu decide: the game contracts here where all |mu| < 1. It knows no batch and no network.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from training.game.updates import UPDATES, Gradients, RoundBatch, Snapshot
from training.stability.field import PLAYERS
from training.stability.rounds.frozen_optimizers import FrozenOptimizer, Memory, standing


class Jacobian(Protocol):
    """Products with the Jacobian of a game (`training.stability.field.Linearization`)."""

    @property
    def size(self) -> int:
        """Number of parameters of both players."""
        ...

    @property
    def sizes(self) -> Mapping[str, int]:
        """Number of each player's parameters."""
        ...

    def jvp_of(self, player: str, u: Tensor) -> Tensor:
        """Returns the player's rows of J u."""
        ...

    def vjp(self, u: Tensor) -> Tensor:
        """Returns J^T u."""
        ...


@dataclass(frozen=True)
class DenseJacobian:
    """A Jacobian that is a matrix, for a game with few parameters."""

    matrix: Tensor
    """[n, n] float64."""
    sizes: Mapping[str, int]
    """Number of each player's parameters."""

    @property
    def size(self) -> int:
        """Number of parameters of both players."""
        return len(self.matrix)

    def jvp_of(self, player: str, u: Tensor) -> Tensor:
        """Returns the player's rows of J u."""
        first = self.sizes["G"]
        rows = self.matrix[:first] if player == "G" else self.matrix[first:]
        return rows @ u

    def vjp(self, u: Tensor) -> Tensor:
        """Returns J^T u."""
        return self.matrix.T @ u


@dataclass(frozen=True, kw_only=True)
class RoundOperator:
    """The map of (theta, psi, memories of G's and of D's optimiser) by one round, [size, size].

    Where the update looks ahead, both players' last moves stand behind psi.
    """

    jacobian: Jacobian
    """Of the field at the place where the game stands."""
    optimizers: Mapping[str, FrozenOptimizer]
    """G's and D's."""
    update: str = "alternating"
    """Entry of UPDATES."""
    steps_D: int = 1
    """Steps of D in a round."""
    steps_G: int = 1
    """Steps of G in a round."""
    lookahead_steps: int = 0
    """Rounds from one time that lookahead draws the players back to the next; 0 for never."""
    lookahead_alpha: float = 0.5
    """Share of the way that they keep."""
    extrapolation: float = 2.0
    """How far along its last move the other player stands, where the update looks ahead."""

    @property
    def size(self) -> int:
        """Length of the vectors that it maps."""
        sizes = self.jacobian.sizes
        moves = self.jacobian.size if UPDATES[self.update].looks_ahead else 0
        return (
            moves
            + self.jacobian.size
            + sum(self.optimizers[player].num_remembered * sizes[player] for player in PLAYERS)
        )

    @property
    def standing(self) -> str:
        """Says who doesn't move here, and why; empty where both players do."""
        return standing(self.optimizers)

    @property
    def num_rounds(self) -> int:
        """Rounds that one application plays: those between two of lookahead's, else 1."""
        return self.lookahead_steps or 1

    def apply(self, state: Tensor) -> Tensor:
        """Maps a vector [size] float64, a small deviation of the state, by `num_rounds` rounds."""
        step = _LinearStep(self, state)
        for _ in range(self.num_rounds):
            UPDATES[self.update].run_round(step)
        if self.lookahead_steps:
            # slow + alpha (fast - slow), both from where the application began; moments stay.
            before = state[: self.jacobian.size]
            step.place = before + self.lookahead_alpha * (step.place - before)
        return step.state

    def scaled(self, factor: float, players: str = "GD") -> "RoundOperator":
        """The round with these players' learning rates multiplied by the factor."""
        changed = {p: self.optimizers[p].scaled(factor) for p in players}
        return replace(self, optimizers={**self.optimizers, **changed})

    def preconditioned(self, u: Tensor) -> Tensor:
        """Returns P J u, P with the learning rates: the flow that small steps follow. u: [n]."""
        return torch.cat([self._rate(p) * self.jacobian.jvp_of(p, u) for p in PLAYERS])

    def preconditioned_back(self, u: Tensor) -> Tensor:
        """Returns (P J)^T u = J^T P u. u: [n]."""
        sizes = self.jacobian.sizes
        parts = torch.split(u, [sizes[player] for player in PLAYERS])
        pairs = zip(PLAYERS, parts, strict=True)
        return self.jacobian.vjp(torch.cat([self._rate(p) * part for p, part in pairs]))

    def _rate(self, player: str) -> Tensor:
        """How far a player moves in a round along a gradient of 1: its part of P."""
        optimizer = self.optimizers[player]
        # In the long run, momentum b moves a player 1 / (1 - b) times as far.
        lasting = 1.0 if optimizer.damped else 1 / (1 - optimizer.momentum)
        steps = self.steps_G if player == "G" else self.steps_D
        return steps * lasting * optimizer.lr * optimizer.scale


class _LinearStep:
    """A `training.game.updates.TrainStep` on the linearised game, around where it stands."""

    def __init__(self, operator: RoundOperator, state: Tensor) -> None:
        self._operator = operator
        sizes, n = operator.jacobian.sizes, operator.jacobian.size
        lengths = [n, n] if UPDATES[operator.update].looks_ahead else [n, 0]
        for player in PLAYERS:
            lengths += [sizes[player]] * operator.optimizers[player].num_remembered
        self.place, self._moves, *remembered = torch.split(state, lengths)
        self._memory: dict[str, Memory] = {}
        for player in PLAYERS:
            num = operator.optimizers[player].num_remembered
            self._memory[player], remembered = remembered[:num], remembered[num:]

    @property
    def state(self) -> Tensor:
        return torch.cat([self.place, self._moves, *self._memory["G"], *self._memory["D"]])

    def batches_D(self) -> Iterator[RoundBatch]:
        # All steps see the batch that the Jacobian is of.
        for _ in range(self._operator.steps_D):
            yield RoundBatch([])

    def batches_G(self, last: RoundBatch) -> Iterator[RoundBatch]:
        for _ in range(self._operator.steps_G):
            yield last

    def again(self, round_batch: RoundBatch) -> RoundBatch:
        return round_batch

    def lazy(self, player: str, round_batch: RoundBatch) -> Iterator[RoundBatch]:
        # The Jacobian has lazy penalties by their mean, in every step.
        return iter(())

    def gradients(self, player: str, round_batch: RoundBatch) -> Gradients:
        return (-self._operator.jacobian.jvp_of(player, self.place),)

    def move(self, player: str, gradients: Gradients) -> None:
        (gradient,) = gradients
        assert gradient is not None
        optimizer = self._operator.optimizers[player]
        move, self._memory[player] = optimizer.step(gradient, self._memory[player])
        num_G = self._operator.jacobian.sizes["G"]
        theta, psi = self.place[:num_G], self.place[num_G:]
        both = (theta + move, psi) if player == "G" else (theta, psi + move)
        self.place = torch.cat(both)
        if len(self._moves):
            of_G, of_D = self._moves[:num_G], self._moves[num_G:]
            self._moves = torch.cat((move, of_D) if player == "G" else (of_G, move))

    @contextmanager
    def ahead(self, player: str) -> Iterator[None]:
        before, num_G = self.place, self._operator.jacobian.sizes["G"]
        further = (self._operator.extrapolation - 1) * self._moves
        further[num_G:] *= player == "D"
        further[:num_G] *= player == "G"
        self.place = before + further
        yield
        self.place = before

    def snapshot(self) -> Snapshot:
        return [self.place.clone()]

    def restore(self, snapshot: Snapshot) -> None:
        (self.place,) = snapshot
