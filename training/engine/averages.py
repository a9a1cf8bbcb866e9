"""Two averages of the players' paths: the exported generator, and lookahead's slow weights.

Both are functions of weights and of how many images were shown. This module knows no loss and no
optimiser.
"""

import torch
from torch import Tensor, nn

from training.config.training import TrainingConfig
from training.optim.schedules import Timetable


class Average:
    """Updates G_ema (Karras et al. 2018, sec. 4.4: an exponential average of G's weights).

    The uniform average gives every iterate the same weight (Gidel et al. 2019, sec. 2: it converges
    where the last iterate circles).
    """

    def __init__(
        self, G: nn.Module, G_ema: nn.Module, config: TrainingConfig, timetable: Timetable
    ) -> None:
        """G, G_ema: twins; G_ema's tensors are written in place. timetable: of ema_kimg."""
        self._from, self._to = _weights(G), _weights(G_ema)
        # Batch norm's statistics are averages already. An exponential one takes the latest, as the
        # references do; a uniform one of weights would find those of weights far from its own.
        self._copied_from, self._copied_to = _statistics(G), _statistics(G_ema)
        if config.average == "uniform":
            self._from, self._to = self._from + self._copied_from, self._to + self._copied_to
            self._copied_from, self._copied_to = [], []
        self._uniform = config.average == "uniform"
        self._ema_kimg = config.ema_kimg
        self._rampup = config.ema_rampup
        self._round_nimg = config.round_nimg
        self._timetable = timetable

    @torch.no_grad()
    def update(self, cur_nimg: int) -> None:
        """Moves G_ema towards G. cur_nimg: images seen, this round's among them."""
        decay = self.decay(cur_nimg)
        if decay == 0:
            torch._foreach_copy_(self._to, self._from)
        else:
            torch._foreach_lerp_(self._to, self._from, 1.0 - decay)
        if self._copied_to:
            torch._foreach_copy_(self._copied_to, self._copied_from)

    def decay(self, cur_nimg: int) -> float:
        """Returns the old average's share after a round: 1/2 in min(ema_kimg, rampup * seen)."""
        if self._uniform:
            return 1 - self._round_nimg / cur_nimg  # after n rounds each has a share of 1/n
        half_life = self._timetable.at("ema_kimg", self._ema_kimg, cur_nimg) * 1000
        # Early on, a long half-life would still hold the random weights of the start.
        if self._rampup > 0:
            half_life = min(half_life, cur_nimg * self._rampup)
        return 0.5 ** (self._round_nimg / half_life) if half_life > 0 else 0.0


class Lookahead:
    """Draws both players back towards where they were (Chavdarova et al. 2021, alg. 1).

    Every k rounds: slow += alpha (fast - slow), and fast = slow, for both players together.
    """

    def __init__(
        self, parameters: list[Tensor], slow: list[Tensor], config: TrainingConfig
    ) -> None:
        """parameters: of both players. slow: their copies, written in place; part of the state."""
        self._fast = parameters
        self._slow = slow
        self._alpha = config.lookahead_alpha
        self._round_nimg = config.round_nimg
        self._nimg = config.lookahead_steps * config.round_nimg

    @torch.no_grad()
    def update(self, cur_nimg: int) -> None:
        """Draws the players back when it is due. cur_nimg: images seen, this round's among them."""
        # cur_nimg may pass a multiple without meeting it, after a resume with another batch size.
        if self._nimg and cur_nimg % self._nimg < self._round_nimg:
            torch._foreach_lerp_(self._slow, self._fast, self._alpha)
            torch._foreach_copy_(self._fast, self._slow)


def _weights(network: nn.Module) -> list[Tensor]:
    """Returns the parameters, detached."""
    return [parameter.detach() for parameter in network.parameters()]


def _statistics(network: nn.Module) -> list[Tensor]:
    """Returns the float buffers: batch norm's statistics."""
    return [buffer for buffer in network.buffers() if buffer.is_floating_point()]
