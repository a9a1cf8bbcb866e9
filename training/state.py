"""All that changes while training: both players, their optimisers, the averaged generator.

Random states are not among it (`training.randomness`), nor is the order of the data: both follow
from the seed and `cur_nimg`.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from models.networks import ImageShape
from training.config import TrainingConfig
from training.constraints import CONSTRAINTS
from training.errors import ConfigError
from training.initialization import INITIALIZATIONS
from training.optimizers import METHODS, Optimism, OptimizerConfig, advance, build, set_rates
from training.play import parameters_of
from training.randomness import key, reseed
from training.updates import Gradients


class Seat:
    """A player's place at the board: a network and the optimiser that moves it."""

    def __init__(self, network: nn.Module, optim: OptimizerConfig) -> None:
        """network: already on its device; parameters without requires_grad never move."""
        self.network = network
        self.parameters = parameters_of(network)
        self.optim = optim
        self.optimizer = build(self.parameters, optim)
        self.optimism = Optimism(self.parameters) if METHODS[optim.method].optimistic else None

    def gradients(self, loss: Tensor) -> Gradients:
        """The loss by this player's parameters alone; None for those that it doesn't depend on.

        Those are a growing network's that are not in use yet: steps of zero would shrink Adam's
        second moment, and their first true step would be ten times too long.
        """
        return torch.autograd.grad(loss, self.parameters, allow_unused=True)

    def move(self, gradients: Gradients, tripped: Tensor) -> None:
        """One step of the optimiser; none at all where `tripped` (a scalar) is 1."""
        laid_out = [
            None if gradient is None else _laid_out(gradient, parameter)
            for parameter, gradient in zip(self.parameters, gradients, strict=True)
        ]
        if self.optimism is None:
            advance(self.optimizer, laid_out, tripped)
        else:
            self.optimism.advance(self.optimizer, laid_out, tripped)

    def set_rates(self, lr: float, betas: tuple[float, float]) -> None:
        """Rates of the next step."""
        set_rates(self.optimizer, lr, betas)

    def state_dict(self) -> dict[str, Any]:
        """What the optimiser remembers."""
        optimism = None if self.optimism is None else self.optimism.last
        return {"optimizer": self.optimizer.state_dict(), "optimism": optimism}

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """The inverse; rates and other options stay those of this seat's configuration."""
        configured = [
            {name: value for name, value in group.items() if name != "params"}
            for group in self.optimizer.param_groups
        ]
        self.optimizer.load_state_dict(content["optimizer"])
        for group, options in zip(self.optimizer.param_groups, configured, strict=True):
            group.update(options)
        if self.optimism is not None:
            torch._foreach_copy_(self.optimism.last, content["optimism"])


@dataclass
class State:
    """Where a training is."""

    G: Seat
    """The generator."""
    D: Seat
    """The discriminator."""
    G_ema: nn.Module
    """The average of G over its path; what is exported."""
    cur_nimg: int
    """Real images shown to D so far."""
    augment_p: Tensor = field(default_factory=lambda: torch.zeros(()))
    """Probability that adaptive augmentation has come to, a scalar on the device."""
    slow: list[Tensor] = field(default_factory=list)
    """Where lookahead draws the players back to, one for each parameter of G, then D."""
    history: list[dict[str, float]] = field(default_factory=list)
    """What the watchdog read at each tick (`training.stability.vitals`)."""
    changes: list[str] = field(default_factory=list)
    """Options that were others before the training was resumed: from when on, before and after."""

    @classmethod
    def fresh(cls, config: TrainingConfig, shape: ImageShape, device: torch.device) -> "State":
        """Newly initialised players; the same on every device, as the CPU draws the weights.

        Raises:
            ConfigError: the networks have nothing that a constraint or frozen_D could act on.
        """
        reseed(key(config.seed, "init", 0), torch.device("cpu"))
        G = config.compute.prepare(config.network.generator(shape), device)
        D = config.network.discriminator(shape)
        INITIALIZATIONS[config.init_D].apply(D)
        return cls.of(config, G, D, device)

    @classmethod
    def of(
        cls, config: TrainingConfig, G: nn.Module, D: nn.Module, device: torch.device
    ) -> "State":
        """Players whose weights are there already. G: on the device."""
        _freeze(D, config.frozen_D)
        for term in config.regularizers:
            constraint = CONSTRAINTS.get(term.name)
            if constraint is not None and constraint.install is not None:
                try:
                    constraint.install(D, term.weight)
                except ValueError as error:
                    raise ConfigError(str(error)) from error
        D = config.compute.prepare(D, device)
        G_ema = copy.deepcopy(G).eval().requires_grad_(False)
        state = cls(Seat(G, config.optim_G), Seat(D, config.optim_D), G_ema, cur_nimg=0)
        state.augment_p = torch.zeros((), device=device)
        if config.lookahead_steps:
            state.slow = [each.detach().clone() for each in state.parameters()]
        return state

    def parameters(self) -> list[Tensor]:
        """Of both players, those that move."""
        return [*self.G.parameters, *self.D.parameters]

    def seat(self, player: str) -> Seat:
        """G's or D's."""
        return self.G if player == "G" else self.D


def _laid_out(gradient: Tensor, parameter: Tensor) -> Tensor:
    """The gradient in the parameter's layout.

    autograd.grad gives some in another (channels last, from a double backward), and the fused
    optimisers step through memory without a look at strides: they would mix the elements up.
    """
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


def _freeze(D: nn.Module, num: int) -> None:
    """The layers next to the image keep their weights (Mo et al. 2020, arXiv:2002.10964)."""
    layers = list(_layers(D))
    if num >= len(layers):
        raise ConfigError(
            f"frozen_D is {num}, allowed: 0 .. {len(layers) - 1}, as D has {len(layers)} layers "
            "with weights; set --frozen-D"
        )
    for layer in layers[:num]:
        layer.requires_grad_(False)


def _layers(network: nn.Module) -> Iterator[nn.Module]:
    """Modules that hold parameters of their own, in the order in which they were defined."""
    for module in network.modules():
        if any(True for _ in module.parameters(recurse=False)):
            yield module
