"""How a training is computed: numbers, memory layout, compiler. Changes its bits, not its meaning.

Knows networks as modules only.
"""

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from training.errors import require
from training.play import Bound, Movable, Player, parameters_of

PRECISIONS = ("fp32", "tf32", "bf16")
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h
_FP16 = (
    "fp16 overflows at 65,504, which logits and gradient penalties reach, and R3GAN diverged in "
    "it (Huang et al. 2024); bf16 has float32's range: set --compute.precision bf16"
)


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """Numbers, memory layout, compiler."""

    precision: str = "fp32"
    """fp32; tf32, float32 with products of 10 bits on GPUs that have it; or bf16, networks in
    bfloat16 with weights and losses in float32."""
    channels_last: bool = False
    """Keep feature maps as NHWC in memory, which convolutions are faster with."""
    compile: bool = False
    """Compile the networks with torch.compile: minutes at the start, faster steps on GPUs."""

    def __post_init__(self) -> None:
        """Refuses what losses can't be computed in."""
        allowed = ", ".join(PRECISIONS)
        remedy = _FP16 if self.precision == "fp16" else "set --compute.precision"
        require(self.precision in PRECISIONS, "compute.precision", self.precision, allowed, remedy)

    def prepare(self, network: nn.Module, device: torch.device) -> nn.Module:
        """The network on its device, in its layout."""
        network = network.to(device)
        return network.to(memory_format=torch.channels_last) if self.channels_last else network

    def set_up(self, device: torch.device) -> None:
        """Sets what is kept for the whole process."""
        if device.type == "cpu":
            _keep_freed_memory()
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True
            torch.backends.cuda.matmul.allow_tf32 = self.precision != "fp32"
            torch.backends.cudnn.allow_tf32 = self.precision != "fp32"

    def bound(self, network: nn.Module, parameters: Mapping[str, Tensor]) -> Movable:
        """The network with other parameters than its own, by name, as it is computed."""
        bound = Bound(network, parameters)
        return Autocast(bound) if self.precision == "bf16" else bound

    def player(self, network: nn.Module, *, twice: bool) -> Player:
        """The network as it is computed.

        twice: its gradient by its input is differentiated again, which compiled code can't be
        (torch 2.14): such a network stays as it is.
        """
        player: Player = torch.compile(network) if self.compile and not twice else network
        return Autocast(player) if self.precision == "bf16" else player


def _keep_freed_memory() -> None:
    """Has glibc keep what is freed for the next round.

    It takes blocks of megabytes from the kernel and gives them back at once, and every feature map
    is such a block: the kernel filling them with zeros, page by page, is a tenth of the time of a
    DCGAN of 64 pixels (`benchmarks/training/dcgan.py`). The peak stays what it is. Elsewhere than
    on glibc it changes nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)  # no block of its own mapping
        mallopt(_M_TRIM_THRESHOLD, -1)  # and the heap isn't trimmed


class Autocast:
    """A player whose matrix products and convolutions are in bfloat16."""

    def __init__(self, player: Player) -> None:
        """player: with float32 parameters."""
        self._player = player

    def __call__(self, *args: Tensor | None, **kwargs: object) -> Any:
        """What the player gives, some of it in bfloat16."""
        first = args[0]
        assert first is not None
        with torch.autocast(first.device.type, torch.bfloat16):
            return self._player(*args, **kwargs)

    def parameters(self) -> list[Tensor]:
        """The player's."""
        return parameters_of(self._player)

    def moved(self, by: Sequence[Tensor]) -> "Autocast":
        """See `training.play.Movable`; the player must be one."""
        return Autocast(self._player.moved(by))  # type: ignore[attr-defined]
