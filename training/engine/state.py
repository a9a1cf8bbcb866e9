"""All that changes while training: both players, their optimisers, the averaged generator.

Random states and the order of the data are not part of it: both follow from the seed and `cur_nimg`
(`training.randomness`).
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.networks import Growing, ImageShape
from training.config.training import TrainingConfig
from training.errors import ConfigError
from training.game.forward import parameters_of
from training.game.regularizers import lazy_intervals
from training.game.updates import UPDATES, Gradients
from training.optim.constraints import CONSTRAINTS
from training.optim.initialization import initialise
from training.optim.optimizers import (
    METHODS,
    Optimism,
    OptimizerConfig,
    advance,
    build,
    with_lazy_steps,
)
from training.optim.schedules import Timetable
from training.randomness import key, reseed


class PlayerState:
    """A player: a network and the optimiser that moves it."""

    def __init__(self, network: nn.Module, optim: OptimizerConfig, lazy_interval: int = 0) -> None:
        """network: already on its device; parameters without requires_grad never move.

        lazy_interval: its penalties have a step of their own every so many batches; 0 for none.
        """
        self.network = network
        self.parameters = parameters_of(network)
        self.optim = optim
        self._lazy_interval = lazy_interval
        lr, betas = self._corrected(optim.lr, optim.betas)
        self.optimizer = build(self.parameters, replace(optim, lr=lr, betas=betas))
        self.optimism = Optimism(self.parameters) if METHODS[optim.method].optimistic else None
        self.last_move: list[Tensor] = []
        """The last change of each parameter, where the update looks ahead along it."""

    def gradients(self, loss: Tensor) -> Gradients:
        """Returns the loss's gradient by this player's parameters, None where it has none.

        A growing network has parameters that are not in use yet. Gradients of zero would shrink
        Adam's second moment, and their first true step would be ten times too long.
        """
        return torch.autograd.grad(loss, self.parameters, allow_unused=True)

    def move(self, gradients: Gradients, found_inf: Tensor) -> None:
        """Takes a step of the optimiser; none at all where `found_inf`, a scalar, is 1."""
        laid_out = [
            None if gradient is None else _laid_out(gradient, parameter)
            for parameter, gradient in zip(self.parameters, gradients, strict=True)
        ]
        if self.optimism is None:
            advance(self.optimizer, laid_out, found_inf)
        else:
            self.optimism.advance(self.optimizer, laid_out, found_inf)

    def rates(self, timetable: Timetable, name: str, cur_nimg: int) -> OptimizerConfig:
        """Returns the options of the optimiser at a point of the training.

        timetable: changes what is configured. name: G or D.
        """
        configured = self.optim.lr, self.optim.betas
        lr, betas = self._corrected(*timetable.rates(f"optim_{name}", *configured, cur_nimg))
        return replace(self.optim, lr=lr, betas=betas)

    def _corrected(
        self, lr: float, betas: tuple[float, float]
    ) -> tuple[float, tuple[float, float]]:
        interval = self._lazy_interval
        return with_lazy_steps(lr, betas, interval) if interval else (lr, betas)

    def state_dict(self) -> dict[str, Any]:
        """Returns the optimiser's state, and the last step or move where one is remembered."""
        optimism = None if self.optimism is None else self.optimism.last
        return {
            "optimizer": self.optimizer.state_dict(),
            "optimism": optimism,
            "last_move": self.last_move,
        }

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Loads that state; rates and other options stay those of this player's configuration."""
        # torch loads rates with the state, but a resumed run may have been given others.
        configured = [
            {name: value for name, value in group.items() if name != "params"}
            for group in self.optimizer.param_groups
        ]
        self.optimizer.load_state_dict(content["optimizer"])
        # Saved in the layout of the run before, which may be another one (channels last).
        for parameter, remembered in self.optimizer.state.items():
            for name, value in remembered.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    remembered[name] = _laid_out(value, parameter)
        for group, options in zip(self.optimizer.param_groups, configured, strict=True):
            group.update(options)
        if self.optimism is not None:
            torch._foreach_copy_(self.optimism.last, content["optimism"])
        # Another update has left none: it begins at rest.
        if self.last_move and content.get("last_move"):
            torch._foreach_copy_(self.last_move, content["last_move"])


@dataclass
class State:
    """The state of a training between two rounds."""

    G: PlayerState
    """The generator."""
    D: PlayerState
    """The discriminator."""
    G_ema: nn.Module
    """The average of G's weights over time, which is exported."""
    cur_nimg: int
    """Real images shown to D so far."""
    augment_p: Tensor = field(default_factory=lambda: torch.zeros(()))
    """The present probability of adaptive augmentation, a scalar on the device."""
    augment_signs: Tensor = field(default_factory=lambda: torch.zeros(2))
    """Sum and number of the E[sign D(real)] since that probability was adapted, there too."""
    path_length: Tensor = field(default_factory=lambda: torch.zeros(()))
    """Running mean of G's path lengths, a scalar on the device; see penalties."""
    slow: list[Tensor] = field(default_factory=list)
    """Lookahead's slow weights, one tensor for each parameter of G, then D."""
    untrained: dict[str, float] = field(default_factory=dict)
    """Norms of the players' weights before the first step, where a watchdog has seen them."""
    history: list[dict[str, float]] = field(default_factory=list)
    """The watchdog's figures of each tick (`training.watchdog.diagnostics`)."""
    looks: list[dict[str, float]] = field(default_factory=list)
    """The figures of the images at each look (`training.runs.quality`), with cur_nimg."""
    changes: list[str] = field(default_factory=list)
    """Options that were changed when the training was resumed: when, old and new value."""

    @classmethod
    def fresh(cls, config: TrainingConfig, shape: ImageShape, device: torch.device) -> "State":
        """Makes newly initialised players, the same on every device: the CPU draws the weights.

        Raises:
            ConfigError: the networks have nothing that a constraint or frozen_D could act on.
        """
        reseed(key(config.seed, "init", 0), torch.device("cpu"))
        G = config.compute.prepare(config.network.generator(shape), device)
        D = config.network.discriminator(shape.packed(config.packing))
        initialise(D, config.network, config.init_D)
        return cls.of(config, G, D, device)

    @classmethod
    def of(
        cls, config: TrainingConfig, G: nn.Module, D: nn.Module, device: torch.device
    ) -> "State":
        """Makes the state of players that have their weights. G: on the device already."""
        _freeze(D, config.frozen_D)
        for term in config.regularizers:
            constraint = CONSTRAINTS.get(term.name)
            if constraint is not None and constraint.install is not None:
                try:
                    constraint.install(D, term.weight)
                except ValueError as error:
                    raise ConfigError(str(error)) from error
        # After the constraints, whose own tensors move to the device with it.
        D = config.compute.prepare(D, device)
        # In evaluation mode from the start: batch norm uses the averaged statistics.
        G_ema = copy.deepcopy(G).eval().requires_grad_(False)
        lazy = {
            player: max(lazy_intervals(config.regularizers, player), default=0)
            if config.lazy_steps
            else 0
            for player in "GD"
        }
        state = cls(
            PlayerState(G, config.optim_G, lazy["G"]),
            PlayerState(D, config.optim_D, lazy["D"]),
            G_ema,
            cur_nimg=0,
        )
        state.augment_p = torch.zeros((), device=device)
        state.path_length = torch.zeros((), device=device)
        state.augment_signs = torch.zeros(2, device=device)
        if UPDATES[config.update].looks_ahead:
            for player in (state.G, state.D):
                player.last_move = [torch.zeros_like(each) for each in player.parameters]
        if config.lookahead_steps:
            state.slow = [each.detach().clone() for each in state.parameters()]
        return state

    def parameters(self) -> list[Tensor]:
        """Returns the parameters of both players that are trained, G's first."""
        return [*self.G.parameters, *self.D.parameters]

    def grow(self, total_nimg: int) -> None:
        """Tells networks that grow how far the training is. total_nimg: of the whole training."""
        progress = min(self.cur_nimg / total_nimg, 1.0)
        networks: tuple[nn.Module, ...] = (self.G.network, self.D.network, self.G_ema)
        for network in networks:
            # To ask isinstance of a protocol takes longer than a small layer.
            if hasattr(type(network), "set_progress"):
                cast(Growing, network).set_progress(progress)

    def player(self, name: str) -> PlayerState:
        """Returns the state of G or D."""
        return self.G if name == "G" else self.D


def _laid_out(gradient: Tensor, parameter: Tensor) -> Tensor:
    """Returns the gradient, or a moment of it, in the parameter's memory layout.

    autograd.grad gives some in another one (channels last, from a double backward), and fused
    optimisers step through memory without regard to strides: they would mix the elements up.
    """
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


def _freeze(D: nn.Module, num: int) -> None:
    """Freezes the layers next to the image (FreezeD, Mo et al. 2020, arXiv:2002.10964)."""
    layers = list(_layers(D))
    if num >= len(layers):
        raise ConfigError(
            f"frozen_D is {num}, allowed: 0 .. {len(layers) - 1}, as D has {len(layers)} layers "
            "with weights; set --frozen-D"
        )
    for layer in layers[:num]:
        layer.requires_grad_(False)


def _layers(network: nn.Module) -> Iterator[nn.Module]:
    """Yields the modules with parameters of their own, in the order of their definition."""
    for module in network.modules():
        if any(True for _ in module.parameters(recurse=False)):
            yield module
