"""What follows the players' path: the averaged generator, and looking ahead.

Both are functions of weights and of how many images were shown. Knows no loss and no optimiser.
"""

import torch
from torch import Tensor, nn

from training.config import TrainingConfig
from training.schedules import Timetable


class Average:
    """Keeps G_ema (Karras et al. 2018, sec. 4.4: an exponential average of G's weights).

    The uniform average gives every iterate the same weight (Gidel et al. 2019, sec. 2: it converges
    where the last iterate circles).
    """

    def __init__(self, G: nn.Module, G_ema: nn.Module, config: TrainingConfig) -> None:
        """G, G_ema: twins; G_ema's tensors are written in place."""
        self._from = _floats(G)
        self._to = _floats(G_ema)
        self._uniform = config.average == "uniform"
        self._ema_kimg = config.ema_kimg
        self._rampup = config.ema_rampup
        self._round_nimg = config.round_nimg
        self._timetable = Timetable(config.schedules)

    @torch.no_grad()
    def update(self, cur_nimg: int) -> None:
        """Moves G_ema towards G. cur_nimg: images seen, this round's among them."""
        decay = self.decay(cur_nimg)
        if decay == 0:
            torch._foreach_copy_(self._to, self._from)
        else:
            torch._foreach_lerp_(self._to, self._from, 1.0 - decay)

    def decay(self, cur_nimg: int) -> float:
        """What a round leaves of the old average: half after min(ema_kimg, rampup * seen)."""
        if self._uniform:
            return 1 - self._round_nimg / cur_nimg
        half_life = self._timetable.at("ema_kimg", self._ema_kimg, cur_nimg) * 1000
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
        """Draws back when it is due. cur_nimg: images seen, this round's among them."""
        if self._nimg and cur_nimg % self._nimg < self._round_nimg:
            torch._foreach_lerp_(self._slow, self._fast, self._alpha)
            torch._foreach_copy_(self._fast, self._slow)


def _floats(network: nn.Module) -> list[Tensor]:
    """Parameters, and buffers such as batch norm's statistics, which are averaged likewise."""
    return [
        tensor.detach()
        for tensor in (*network.parameters(), *network.buffers())
        if tensor.is_floating_point()
    ]
