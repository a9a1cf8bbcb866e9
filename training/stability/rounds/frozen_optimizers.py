"""Optimisers as linear maps: how a player moves along a small gradient, second moments held.

Adam and RMSProp divide by the root of a second moment, which changes slowly. With it held, a step
is linear in the gradient and in the first moment, so that a round of the linearised game is a
matrix. Each entry follows the code of its optimiser (`training.optim.optimizers`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from training.engine.state import PlayerState
from training.errors import require
from training.optim.optimizers import METHODS, OptimizerConfig

Memory = list[Tensor]
"""What an optimiser remembers between two steps, each as long as the player."""


@dataclass(frozen=True, kw_only=True)
class FrozenOptimizer:
    """One player's optimiser with its second moment held."""

    lr: float
    """Learning rate."""
    momentum: float
    """Decay of the first moment; may be negative (Gidel et al. 2019, arXiv:1807.04740)."""
    scale: Tensor
    """What the gradient is multiplied by, P: a scalar, or one number for each parameter."""
    damped: bool
    """True where the first moment is (1 - momentum) times the gradients' sum, as Adam's is."""
    optimistic: bool = False
    """True where each step is corrected by the last one (Daskalakis et al. 2018)."""

    @property
    def num_remembered(self) -> int:
        """Vectors that it remembers between two steps."""
        return int(self.momentum != 0) + int(self.optimistic)

    @property
    def moves(self) -> bool:
        """False where no gradient moves the player."""
        return self.lr > 0 and bool(self.scale.any())

    def step(self, gradient: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Returns the move and the new memory. gradient: of the loss, in the player's size."""
        rest, kept = list(memory), []
        moment = gradient * self.scale
        if self.momentum:
            share = 1 - self.momentum if self.damped else 1.0
            moment = self.momentum * rest.pop(0) + share * moment
            kept.append(moment)
        move = -self.lr * moment
        if self.optimistic:
            return 2 * move - rest.pop(0), [*kept, move]
        return move, kept

    def scaled(self, factor: float) -> "FrozenOptimizer":
        """The same with a learning rate multiplied by the factor."""
        return replace(self, lr=self.lr * factor)


NOTHING_MOVES = "nothing moves"


def standing(optimizers: Mapping[str, FrozenOptimizer]) -> str:
    """Says which players don't move, and why; empty where all of them do.

    optimizers: by the player's name.
    """
    still = [name for name, each in optimizers.items() if not each.moves]
    if not still:
        return ""
    at_rest = [name for name in still if not optimizers[name].lr]
    if len(at_rest) == len(optimizers):
        return f"the rates are 0 here: {NOTHING_MOVES}"
    why = " and ".join(
        f"the rate of {name} is 0 here"
        if name in at_rest
        else f"the optimiser of {name} has taken no step yet"
        for name in still
    )
    return f"{why}: {NOTHING_MOVES if len(still) > 1 else f'{still[0]} stands still'}"


Scale = Callable[[PlayerState, OptimizerConfig], Tensor]
"""(player, options) to P, from the second moments that the player's optimiser has come to."""


def _adam(player: PlayerState, options: OptimizerConfig) -> Tensor:
    parts = []
    beta1, beta2 = options.betas
    for parameter in player.parameters:
        state = player.optimizer.state.get(parameter)
        if not state:  # it has never moved: Adam's first step is lr sign(gradient), no linear map
            parts.append(torch.zeros_like(parameter).double().flatten())
            continue
        num = float(state["step"])
        second = state["exp_avg_sq"].double().flatten() / (1 - beta2**num)
        parts.append(1 / ((1 - beta1**num) * (second.sqrt() + options.eps)))
    return torch.cat(parts).cpu()


def _rmsprop(player: PlayerState, options: OptimizerConfig) -> Tensor:
    parts = []
    for parameter in player.parameters:
        state = player.optimizer.state.get(parameter)
        second = torch.zeros_like(parameter) if not state else state["square_avg"]
        scale = 1 / (second.double().flatten().sqrt() + options.eps)
        parts.append(scale if state else torch.zeros_like(scale))
    return torch.cat(parts).cpu()


def _sgd(player: PlayerState, options: OptimizerConfig) -> Tensor:
    return torch.ones((), dtype=torch.float64)


@dataclass(frozen=True, kw_only=True)
class _Linear:
    scale: Scale
    damped: bool = False


_LINEAR = {
    "adam": _Linear(scale=_adam, damped=True),
    "optimistic-adam": _Linear(scale=_adam, damped=True),
    "rmsprop": _Linear(scale=_rmsprop),
    "sgd": _Linear(scale=_sgd),
}


def frozen(player: PlayerState, options: OptimizerConfig) -> FrozenOptimizer:
    """Freezes a player's optimiser as it stands.

    options: rates at this point of the training, where schedules have changed them.

    Raises:
        ConfigError: no linear form of the method is known.
    """
    known = ", ".join(_LINEAR)
    remedy = "the round of another optimiser has no linear form here"
    require(options.method in _LINEAR, "optim.method", options.method, known, remedy)
    linear = _LINEAR[options.method]
    return FrozenOptimizer(
        lr=options.lr,
        momentum=options.betas[0],
        scale=linear.scale(player, options),
        damped=linear.damped,
        optimistic=METHODS[options.method].optimistic,
    )


def plain(
    lr: float, momentum: float = 0.0, *, damped: bool = False, optimistic: bool = False
) -> FrozenOptimizer:
    """Gradient descent, with heavy-ball momentum or, damped, Adam's with P = 1."""
    one = torch.ones((), dtype=torch.float64)
    return FrozenOptimizer(
        lr=lr, momentum=momentum, scale=one, damped=damped, optimistic=optimistic
    )
