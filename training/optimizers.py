"""Optimisers: how a player moves along its gradient.

A method builds a torch optimiser from one player's options; a new one is one more entry. Optimism
is a wrapper that works on any of them. Knows no game.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer, RMSprop

from training.errors import require, require_number


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How one player moves."""

    method: str = "adam"
    """Entry of training/optimizers.py, see --list."""
    lr: float = 2e-4
    """Learning rate per step."""
    betas: tuple[float, float] = (0.5, 0.999)
    """Decay per step of the gradient's first and second moment, in [0, 1)."""
    eps: float = 1e-8
    """Added to the root of the second moment."""

    def check(self, field: str) -> None:
        """Raises ConfigError for what can't be stepped with.

        field: whose it is, optim_G or optim_D: only who holds it knows.
        """
        option = f"--{field.replace('_', '-')}"
        methods = ", ".join(METHODS)
        known = self.method in METHODS
        require(known, f"{field}.method", self.method, methods, f"set {option}.method, see --list")
        for name in ("lr", "eps"):
            value, remedy = getattr(self, name), f"set {option}.{name}"
            require_number(f"{field}.{name}", value, above=0, remedy=remedy)
        in_range = all(0 <= beta < 1 for beta in self.betas)
        allowed, remedy = "two numbers in [0, 1)", f"for instance {option}.betas 0.5 0.999"
        require(in_range, f"{field}.betas", self.betas, allowed, remedy)
        if self.method == "sgd":
            remedy = f"sgd has no second moment: set {option}.betas M 0"
            zero = self.betas[1] == 0
            require(zero, f"{field}.betas", self.betas, "M 0, M the momentum", remedy)


@dataclass(frozen=True, kw_only=True)
class Method:
    """An entry of METHODS."""

    build: Callable[[list[Tensor], OptimizerConfig], Optimizer]
    """(parameters, options) to an optimiser."""
    paper: str
    """Where it is from."""
    optimistic: bool = False
    """True for the optimistic form of what `build` gives."""


class FusedAdam(Adam):
    """torch's fused Adam without its bookkeeping, which takes small networks longer than the step.

    The kernel, its arguments and the state are torch's. The lists that it is called with are made
    once, and the count of steps, which is every parameter's, is one tensor.
    """

    def __init__(self, parameters: list[Tensor], config: OptimizerConfig) -> None:
        """parameters: all on one device and of one type."""
        super().__init__(parameters, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
        self._parameters = parameters
        self._moments: tuple[list[Tensor], list[Tensor], Tensor] | None = None
        self._apart = False

    def state_dict(self) -> dict[str, Any]:
        """As torch has it: each parameter with a count of its own."""
        content = super().state_dict()
        remembered = content["state"].items()
        counted = {index: {**each, "step": each["step"].clone()} for index, each in remembered}
        return {**content, "state": counted}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch has it."""
        super().load_state_dict(state_dict)
        self._moments = None
        states = [self.state.get(parameter) for parameter in self._parameters]
        steps = {None if not each else each["step"].item() for each in states}
        self._apart = len(steps) > 1

    @torch.no_grad()
    def advance(self, gradients: Sequence[Tensor | None], tripped: Tensor) -> None:
        """One step; none at all where `tripped` (a scalar on the device) is 1.

        A parameter whose gradient is None stays, and keeps its own count from then on.
        """
        given = [gradient for gradient in gradients if gradient is not None]
        if self._apart or len(given) < len(gradients):
            self._advance_apart(gradients, tripped)
            return
        if self._moments is None:
            self._moments = self._gather()
        first, second, step = self._moments
        (group,) = self.param_groups
        step.add_(1)
        torch._fused_adam_(
            self._parameters,
            given,
            first,
            second,
            [],
            [step] * len(self._parameters),
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=0.0,
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
            found_inf=tripped,
        )
        step.sub_(tripped)

    def _advance_apart(self, gradients: Sequence[Tensor | None], tripped: Tensor) -> None:
        """The same by torch's own step: every parameter has a count of its own."""
        if not self._apart:
            for state in self.state.values():
                state["step"] = state["step"].clone()
            self._apart, self._moments = True, None
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        self.found_inf = tripped
        self.step()
        self.zero_grad(set_to_none=True)

    def _gather(self) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """What is remembered of the gradients, made on the first step as torch makes it."""
        step: Tensor | None = None
        for parameter in self._parameters:
            state = self.state[parameter]
            if step is None:
                step = state.get("step", torch.zeros((), device=parameter.device))
            if not state:
                state["step"] = step
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
            state["step"] = step
        assert step is not None
        states = [self.state[parameter] for parameter in self._parameters]
        return [each["exp_avg"] for each in states], [each["exp_avg_sq"] for each in states], step


def _rmsprop(parameters: list[Tensor], config: OptimizerConfig) -> Optimizer:
    momentum, alpha = config.betas
    return RMSprop(parameters, lr=config.lr, alpha=alpha, momentum=momentum, eps=config.eps)


def _sgd(parameters: list[Tensor], config: OptimizerConfig) -> Optimizer:
    return SGD(parameters, lr=config.lr, momentum=config.betas[0], fused=True)


METHODS: dict[str, Method] = {
    "adam": Method(build=FusedAdam, paper="Kingma and Ba 2015, arXiv:1412.6980"),
    "optimistic-adam": Method(
        build=FusedAdam,
        optimistic=True,
        paper="Daskalakis et al. 2018, arXiv:1711.00141, alg. 1",
    ),
    "rmsprop": Method(
        build=_rmsprop, paper="Tieleman and Hinton 2012, lecture 6.5; betas are momentum and alpha"
    ),
    "sgd": Method(build=_sgd, paper="Robbins and Monro 1951; betas are momentum and 0"),
}


def build(parameters: Sequence[Tensor], config: OptimizerConfig) -> Optimizer:
    """The optimiser of one player."""
    return METHODS[config.method].build(list(parameters), config)


def advance(optimizer: Optimizer, gradients: Sequence[Tensor | None], tripped: Tensor) -> None:
    """One step of any optimiser; none at all where `tripped` (a scalar) is 1.

    gradients: one for each parameter, in its layout; None for one that stays.
    """
    if isinstance(optimizer, FusedAdam):
        optimizer.advance(gradients, tripped)
        return
    (group,) = optimizer.param_groups
    for parameter, gradient in zip(group["params"], gradients, strict=True):
        parameter.grad = gradient
    if getattr(optimizer, "_step_supports_amp_scaling", False):
        # Fused, it reads the flag on the device: weights, moments and step count stay.
        optimizer.found_inf = tripped  # type: ignore[attr-defined]
        optimizer.step()
    elif not tripped:  # waits for the device
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def set_rates(optimizer: Optimizer, lr: float, betas: tuple[float, float]) -> None:
    """Gives every group new rates; those that the method doesn't have are left out."""
    for group in optimizer.param_groups:
        group["lr"] = lr
        if "betas" in group:
            group["betas"] = betas
        elif "alpha" in group:
            group["momentum"], group["alpha"] = betas
        else:
            group["momentum"] = betas[0]


class Optimism:
    """Turns w + d_t into w + 2 d_t - d_(t-1), d_t an optimiser's step (Daskalakis et al. 2018).

    The last step is state: it is saved with the optimiser.
    """

    def __init__(self, parameters: list[Tensor]) -> None:
        """parameters: those that the optimiser moves."""
        self._parameters = parameters
        self.last = [torch.zeros_like(parameter) for parameter in parameters]

    @torch.no_grad()
    def advance(
        self, optimizer: Optimizer, gradients: Sequence[Tensor | None], tripped: Tensor
    ) -> None:
        """One optimistic step; none at all where `tripped` (a scalar) is 1."""
        moving = [i for i, gradient in enumerate(gradients) if gradient is not None]
        parameters = [self._parameters[i] for i in moving]
        last = [self.last[i] for i in moving]
        before = [parameter.detach().clone() for parameter in parameters]
        advance(optimizer, gradients, tripped)
        extra = torch._foreach_sub(torch._foreach_sub(parameters, before), last)
        torch._foreach_mul_(extra, 1 - tripped)
        torch._foreach_add_(parameters, extra)
        torch._foreach_add_(last, extra)
