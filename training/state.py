"""All that changes while training: both players, their optimisers, the averaged generator.

Random states are not among it (`training.randomness`), nor is the order of the data: both follow
from the seed and `cur_nimg`.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Adam

from models.networks import ImageShape
from training.config import AdamConfig, TrainingConfig
from training.initialization import INITIALIZATIONS
from training.randomness import key, reseed


class Seat:
    """A player's place at the board: a network and the optimiser that moves it."""

    def __init__(self, network: nn.Module, optim: AdamConfig) -> None:
        """network: already on its device."""
        self.network = network
        self.parameters = list(network.parameters())
        self.optimizer = Adam(
            self.parameters, lr=optim.lr, betas=optim.betas, eps=optim.eps, fused=True
        )

    def gradients(self, loss: Tensor) -> tuple[Tensor, ...]:
        """The loss by this player's parameters alone."""
        return torch.autograd.grad(loss, self.parameters)

    def move(self, gradients: tuple[Tensor, ...], tripped: Tensor) -> None:
        """One step of the optimiser; none at all where `tripped` (a scalar) is 1."""
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        # Fused Adam reads it on the device: weights, moments and step count stay as they are.
        self.optimizer.found_inf = tripped  # type: ignore[attr-defined]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


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

    @classmethod
    def fresh(cls, config: TrainingConfig, shape: ImageShape, device: torch.device) -> "State":
        """Newly initialised players; the same on every device, as the CPU draws the weights."""
        reseed(key(config.seed, "init", 0), torch.device("cpu"))
        G = config.network.generator(shape).to(device)
        D = config.network.discriminator(shape)
        INITIALIZATIONS[config.init_D].apply(D)
        D = D.to(device)
        G_ema = copy.deepcopy(G).eval().requires_grad_(False)
        return cls(Seat(G, config.optim_G), Seat(D, config.optim_D), G_ema, cur_nimg=0)


class Average:
    """Keeps G_ema (Karras et al. 2018, sec. 4.4: an exponential average of G's weights)."""

    def __init__(self, G: nn.Module, G_ema: nn.Module, config: TrainingConfig) -> None:
        """G, G_ema: twins; G_ema's tensors are written in place."""
        self._from = _floats(G)
        self._to = _floats(G_ema)
        self._ema_nimg = config.ema_kimg * 1000
        self._rampup = config.ema_rampup
        self._batch_size = config.batch_size

    @torch.no_grad()
    def update(self, cur_nimg: int) -> None:
        """Moves G_ema towards G. cur_nimg: images seen, this step's among them."""
        torch._foreach_lerp_(self._to, self._from, 1.0 - self.decay(cur_nimg))

    def decay(self, cur_nimg: int) -> float:
        """What a step leaves of the old average: half after min(ema_kimg, rampup * seen)."""
        half_life = self._ema_nimg
        if self._rampup > 0:
            half_life = min(half_life, cur_nimg * self._rampup)
        return 0.5 ** (self._batch_size / half_life) if half_life > 0 else 0.0


def _floats(network: nn.Module) -> list[Tensor]:
    """Parameters, and buffers such as batch norm's statistics, which are averaged likewise."""
    return [
        tensor.detach()
        for tensor in (*network.parameters(), *network.buffers())
        if tensor.is_floating_point()
    ]
