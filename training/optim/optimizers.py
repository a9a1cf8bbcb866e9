"""Optimisers: how a player moves along its gradient.

A method builds a torch optimiser from one player's options; a new one is one more entry. Optimism
is a wrapper that works on any of them. This module knows no game.
"""

import math
from collections.abc import Callable, Iterator, Sequence
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
    """Entry of training/optim/optimizers.py, see --list."""
    lr: float = 2e-4
    """Learning rate per step."""
    betas: tuple[float, float] = (0.5, 0.999)
    """Decay per step of the gradient's first and second moment: in (-1, 1), negative as in Gidel
    et al. 2019, and in [0, 1)."""
    eps: float = 1e-8
    """Added to the root of the second moment."""

    def check(self, field: str) -> None:
        """Raises ConfigError for options that make no optimiser.

        field: optim_G or optim_D, the field that these options are in, for the message.
        """
        option = f"--{field.replace('_', '-')}"
        methods = ", ".join(METHODS)
        known = self.method in METHODS
        require(known, f"{field}.method", self.method, methods, f"set {option}.method, see --list")
        for name in ("lr", "eps"):
            value, remedy = getattr(self, name), f"set {option}.{name}"
            require_number(f"{field}.{name}", value, above=0, remedy=remedy)
        least = -1 if METHODS[self.method].negative else 0
        in_range = all(0 <= beta < 1 for beta in self.betas[1:])
        in_range = in_range and (least < self.betas[0] < 1 or self.betas[0] == 0)
        first = "(-1, 1)" if least else "[0, 1)"
        allowed = f"a first one in {first} and a second one in [0, 1)"
        remedy = f"for instance {option}.betas 0.5 0.999"
        require(in_range, f"{field}.betas", self.betas, allowed, remedy)
        if not METHODS[self.method].second_moment:
            remedy = f"{self.method} has no second moment: set {option}.betas M 0"
            zero = self.betas[1] == 0
            require(zero, f"{field}.betas", self.betas, "M 0, M the momentum", remedy)


@dataclass(frozen=True, kw_only=True)
class Method:
    """An entry of METHODS."""

    build: Callable[[list[Tensor], OptimizerConfig], Optimizer]
    """Makes an optimiser from (parameters, options)."""
    paper: str
    """Where it is from."""
    optimistic: bool = False
    """True for the optimistic form of the optimiser that `build` gives."""
    adam: bool = False
    """True where its steps are Adam's, with moments that unrolled steps can begin with."""
    negative: bool = True
    """False where the first of the two betas can't be negative."""
    second_moment: bool = True
    """False where the second of the two betas means nothing, and must be 0."""


class FusedAdam(Adam):
    """torch's fused Adam without its bookkeeping, which takes longer than the step of a small net.

    Kernel, arguments and state are torch's. The lists for the kernel are made once, and the count
    of steps is one tensor that all parameters share.
    """

    def __init__(self, parameters: list[Tensor], config: OptimizerConfig) -> None:
        """parameters: all on one device and of one type."""
        beta1, beta2 = config.betas
        betas = (abs(beta1), beta2)
        super().__init__(parameters, lr=config.lr, betas=betas, eps=config.eps, fused=True)
        set_rates(self, config.lr, config.betas)  # torch allows no negative one at first
        self._parameters = parameters
        self._moments: tuple[list[Tensor], list[Tensor], Tensor] | None = None
        self._apart = False

    def state_dict(self) -> dict[str, Any]:
        """Returns torch's own format: each parameter with a count of its own."""
        content = super().state_dict()
        remembered = content["state"].items()
        counted = {index: {**each, "step": each["step"].clone()} for index, each in remembered}
        return {**content, "state": counted}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads torch's own format."""
        super().load_state_dict(state_dict)
        self._moments = None
        states = [self.state.get(parameter) for parameter in self._parameters]
        steps = {None if not each else each["step"].item() for each in states}
        self._apart = len(steps) > 1  # counts that differ can't be one tensor

    @torch.no_grad()
    def advance(self, gradients: Sequence[Tensor | None], found_inf: Tensor) -> None:
        """Takes a step; none at all where `found_inf`, a scalar on the device, is 1.

        A parameter whose gradient is None stays, and has a count of its own from then on.
        """
        given = [gradient for gradient in gradients if gradient is not None]
        if self._apart or len(given) < len(gradients):
            self._advance_apart(gradients, found_inf)
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
            found_inf=found_inf,
        )
        step.sub_(found_inf)  # the kernel has changed nothing, so the step doesn't count

    def _advance_apart(self, gradients: Sequence[Tensor | None], found_inf: Tensor) -> None:
        """Takes the same step by torch's own code: every parameter has a count of its own."""
        if not self._apart:
            for state in self.state.values():
                state["step"] = state["step"].clone()
            self._apart, self._moments = True, None
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        self.found_inf = found_inf  # torch's fused step reads it from here
        self.step()
        self.zero_grad(set_to_none=True)

    def _gather(self) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Returns first moments, second moments and the count; new ones before the first step."""
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
    momentum, alpha = config.betas  # decays of the first and the second moment, as in Adam
    return RMSprop(parameters, lr=config.lr, alpha=alpha, momentum=momentum, eps=config.eps)


def _sgd(parameters: list[Tensor], config: OptimizerConfig) -> Optimizer:
    optimizer = SGD(parameters, lr=config.lr, momentum=abs(config.betas[0]), fused=True)
    set_rates(optimizer, config.lr, config.betas)  # torch allows no negative one at first
    return optimizer


class NormalizedSGD(Optimizer):
    """Steps of one length: along the momentum of gradients that are divided by their norm."""

    def __init__(
        self, parameters: list[Tensor], config: OptimizerConfig, *, by_layer: bool
    ) -> None:
        """by_layer: each tensor's gradient by its own norm, else all by their common one."""
        super().__init__(parameters, {"lr": config.lr, "momentum": config.betas[0]})
        self._by_layer = by_layer
        self._eps = config.eps

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Takes a step; a parameter without a gradient stays."""
        (group,) = self.param_groups
        moving = [each for each in group["params"] if each.grad is not None]
        gradients = [each.grad for each in moving]
        norms = list(torch._foreach_norm(gradients))
        if not self._by_layer:
            norms = [torch.linalg.vector_norm(torch.stack(norms))] * len(norms)
        for parameter, gradient, norm in zip(moving, gradients, norms, strict=True):
            # Where nothing pulls, there is no direction: the step is 0, and not 0 / 0.
            direction = gradient / (norm + self._eps)
            if group["momentum"]:
                state = self.state[parameter]
                last = state.get("momentum_buffer")
                if last is not None:
                    direction = direction + group["momentum"] * last
                state["momentum_buffer"] = direction
            parameter.sub_(group["lr"] * direction)


def _normalized(by_layer: bool) -> Callable[[list[Tensor], OptimizerConfig], Optimizer]:
    return lambda parameters, config: NormalizedSGD(parameters, config, by_layer=by_layer)


METHODS: dict[str, Method] = {
    "adam": Method(build=FusedAdam, adam=True, paper="Kingma and Ba 2015, arXiv:1412.6980"),
    "optimistic-adam": Method(
        build=FusedAdam,
        optimistic=True,
        paper="Daskalakis et al. 2018, arXiv:1711.00141, alg. 1",
    ),
    "rmsprop": Method(
        build=_rmsprop,
        negative=False,  # torch takes it for none
        paper="Tieleman and Hinton 2012, lecture 6.5; betas are momentum and alpha",
    ),
    "sgd": Method(
        build=_sgd,
        paper="Robbins and Monro 1951; betas are momentum, which Gidel et al. 2019, "
        "arXiv:1807.04740, make negative, and 0",
        second_moment=False,
    ),
    "normalized-sgd": Method(
        build=_normalized(by_layer=False),
        second_moment=False,
        paper="Jelassi et al. 2022, arXiv:2210.04319, nSGDA; betas are momentum and 0",
    ),
    "normalized-sgd-by-layer": Method(
        build=_normalized(by_layer=True),
        second_moment=False,
        paper="Jelassi et al. 2022, arXiv:2210.04319, nSGDA layer by layer; betas as above",
    ),
}


def build(parameters: Sequence[Tensor], config: OptimizerConfig) -> Optimizer:
    """Makes the optimiser of one player."""
    return METHODS[config.method].build(list(parameters), config)


def advance(optimizer: Optimizer, gradients: Sequence[Tensor | None], found_inf: Tensor) -> None:
    """Takes a step of any optimiser; none at all where `found_inf`, a scalar, is 1.

    gradients: one for each parameter, in its layout; None for one that stays.
    """
    if isinstance(optimizer, FusedAdam):
        optimizer.advance(gradients, found_inf)
        return
    (group,) = optimizer.param_groups
    for parameter, gradient in zip(group["params"], gradients, strict=True):
        parameter.grad = gradient
    if getattr(optimizer, "_step_supports_amp_scaling", False):
        # Fused, it reads the flag on the device: weights, moments and step count stay.
        optimizer.found_inf = found_inf  # type: ignore[attr-defined]
        optimizer.step()
    elif found_inf.device.type == "cpu":
        if not found_inf:
            optimizer.step()
    else:
        step_unless(optimizer, found_inf)
    optimizer.zero_grad(set_to_none=True)


@torch.no_grad()
def step_unless(optimizer: Optimizer, found_inf: Tensor) -> None:
    """Takes the step of an optimiser that doesn't know the flag, and takes it back where it is 1.

    Nothing is asked of the device; weights and moments end up bit by bit as if it had been.
    """
    (group,) = optimizer.param_groups
    moving = [each for each in group["params"] if each.grad is not None]
    before = [(each, each.detach().clone()) for each in moving]
    remembered = {(each, name): value.clone() for each, name, value in _tensors(optimizer, moving)}
    optimizer.step()
    # By their names: an optimiser may put a new tensor in the place of an old one.
    memory = [
        (value, remembered[each, name] if (each, name) in remembered else torch.zeros_like(value))
        for each, name, value in _tensors(optimizer, moving)
        if value.device == found_inf.device
    ]
    for now, then in (*before, *memory):
        now.copy_(torch.where(found_inf > 0, then, now))


def _tensors(
    optimizer: Optimizer, parameters: Sequence[Tensor]
) -> Iterator[tuple[Tensor, str, Tensor]]:
    """Yields what an optimiser remembers: the parameter, the name and the tensor."""
    for parameter in parameters:
        for name, value in optimizer.state[parameter].items():
            if isinstance(value, Tensor):
                yield parameter, name, value


def set_rates(optimizer: Optimizer, lr: float, betas: tuple[float, float]) -> None:
    """Sets the rates of the next steps; those that the method doesn't have are ignored."""
    for group in optimizer.param_groups:
        group["lr"] = lr
        if "betas" in group:
            group["betas"] = betas
        elif "alpha" in group:
            group["momentum"], group["alpha"] = betas
        else:
            group["momentum"] = betas[0]


def with_lazy_steps(
    lr: float, betas: tuple[float, float], interval: int
) -> tuple[float, tuple[float, float]]:
    """The rate and betas of a player that has interval + 1 steps for every `interval` batches.

    With c = interval / (interval + 1) the rate is multiplied by c and the betas are taken to the
    power of c, so that over `interval` batches it moves as far, and forgets as much, as without the
    step of its penalties (Karras et al. 2020, arXiv:1912.04958, app. B).
    """
    share = interval / (interval + 1)
    first, second = (math.copysign(abs(beta) ** share, beta) for beta in betas)
    return lr * share, (first, second)


class Optimism:
    """Turns w + d_t into w + 2 d_t - d_(t-1), d_t an optimiser's step (Daskalakis et al. 2018).

    The last step, d_(t-1), is saved with the optimiser.
    """

    def __init__(self, parameters: list[Tensor]) -> None:
        """parameters: those that the optimiser moves."""
        self._parameters = parameters
        self.last = [torch.zeros_like(parameter) for parameter in parameters]

    @torch.no_grad()
    def advance(
        self, optimizer: Optimizer, gradients: Sequence[Tensor | None], found_inf: Tensor
    ) -> None:
        """Takes an optimistic step; none at all where `found_inf`, a scalar, is 1."""
        # A parameter that stays has made no step to correct by, and keeps its last one.
        moving = [i for i, gradient in enumerate(gradients) if gradient is not None]
        parameters = [self._parameters[i] for i in moving]
        last = [self.last[i] for i in moving]
        before = [parameter.detach().clone() for parameter in parameters]
        advance(optimizer, gradients, found_inf)
        extra = torch._foreach_sub(torch._foreach_sub(parameters, before), last)
        torch._foreach_mul_(extra, 1 - found_inf)  # without a step there is no correction either
        torch._foreach_add_(parameters, extra)
        torch._foreach_add_(last, extra)
