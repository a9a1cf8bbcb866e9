"""Steps of an optimiser as functions of gradients, to be differentiated through (Metz et al. 2017).

The optimiser itself isn't moved. This module knows no game.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

_TINY = 1e-30  # under the root, which has no slope at 0

Steps = Callable[[Sequence[Tensor]], list[Tensor]]
"""Gradients to what is added to the parameters; called once for each step, in order."""


def descent(lr: float) -> Steps:
    """Plain gradient descent."""
    return lambda gradients: [-lr * gradient for gradient in gradients]


class Adam:
    """Adam from the moments that a torch optimiser has come to (Kingma and Ba 2015, alg. 1)."""

    def __init__(self, optimizer: Optimizer, lr: float) -> None:
        """optimizer: torch's Adam; its moments are read, its rate is not."""
        (group,) = optimizer.param_groups
        self._lr, self._eps = lr, group["eps"]
        self._beta1, self._beta2 = group["betas"]
        states = [optimizer.state.get(parameter) or {} for parameter in group["params"]]
        zeros = [torch.zeros_like(parameter) for parameter in group["params"]]
        pairs = list(zip(states, zeros, strict=True))
        self._first = [state.get("exp_avg", zero).clone() for state, zero in pairs]
        self._second = [state.get("exp_avg_sq", zero).clone() for state, zero in pairs]
        none = torch.zeros((), device=zeros[0].device)
        self._counts = [state.get("step", none).clone() for state in states]

    def __call__(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Takes one step; differentiable by the gradients of this step and those before."""
        steps = []
        for i, gradient in enumerate(gradients):
            self._counts[i] = count = self._counts[i] + 1
            self._first[i] = self._beta1 * self._first[i] + (1 - self._beta1) * gradient
            squares = (1 - self._beta2) * gradient.square()
            self._second[i] = self._beta2 * self._second[i] + squares
            first = self._first[i] / (1 - self._beta1**count)
            root = (self._second[i] / (1 - self._beta2**count) + _TINY).sqrt()
            steps.append(-self._lr * first / (root + self._eps))
        return steps
