"""How a training is computed: precision, memory layout, compiler, device.

These options change the bits of the result, not the method. This module knows networks only as
torch modules.
"""

import ctypes
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from training.errors import require
from training.game.forward import Bound, Movable, Player, parameters_of

PRECISIONS = ("fp32", "tf32", "bf16")
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h
_FP16 = (
    "fp16 overflows at 65,504, which logits and gradient penalties reach, and R3GAN diverged in "
    "it (Huang et al. 2024); bf16 has float32's range: set --compute.precision bf16"
)


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """Precision, memory layout and compiler."""

    precision: str = "fp32"
    """fp32; tf32: float32 whose products keep 10 bits, on GPUs that have it; or bf16: networks
    compute in bfloat16, weights and losses stay in float32."""
    channels_last: bool = False
    """Keep feature maps as NHWC in memory, which makes convolutions faster."""
    deterministic: bool = False
    """Choose operations that give the same bits in every run on the same GPU; slower there. On the
    CPU a training of one process is the same in every run anyway."""
    compile: bool = False
    """Compile the networks with torch.compile: minutes at the start, faster steps on GPUs."""

    def __post_init__(self) -> None:
        """Checks the precision.

        Raises:
            ConfigError: losses can't be computed in it.
        """
        allowed = ", ".join(PRECISIONS)
        remedy = _FP16 if self.precision == "fp16" else "set --compute.precision"
        require(self.precision in PRECISIONS, "compute.precision", self.precision, allowed, remedy)

    def prepare(self, network: nn.Module, device: torch.device) -> nn.Module:
        """Moves a network to the device and into the memory layout, and returns it."""
        network = network.to(device)
        return network.to(memory_format=torch.channels_last) if self.channels_last else network

    def set_up(self, device: torch.device) -> None:
        """Applies the settings that hold for the whole process: allocator, cuDNN, TF32."""
        if device.type == "cpu":
            _keep_freed_memory()
        if self.deterministic:
            # cuBLAS reads it when it is first used (its documentation, "Results reproducibility").
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True)
            # Else new memory is filled with NaN before it is written, for no use here.
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        if device.type == "cuda":
            # Else what names no device, as a seed or a buffer of a library, goes to the first GPU.
            if device.index is not None:  # without a number it is the first one already
                torch.cuda.set_device(device)
            emulated = "this card only emulates bfloat16, slower than float32: set fp32"
            native = torch.cuda.is_bf16_supported(including_emulation=False)
            fits = self.precision != "bf16" or native
            require(fits, "compute.precision", self.precision, "fp32, tf32", emulated)
            torch.backends.cudnn.benchmark = not self.deterministic
            torch.backends.cuda.matmul.allow_tf32 = self.precision != "fp32"
            torch.backends.cudnn.allow_tf32 = self.precision != "fp32"

    def bound(self, network: nn.Module, parameters: Mapping[str, Tensor]) -> Movable:
        """The network with the given parameters, by name, instead of its own."""
        bound = Bound(network, parameters)
        return Autocast(bound) if self.precision == "bf16" else bound

    def player(self, network: nn.Module, *, twice: bool) -> Player:
        """The network compiled and under autocast, as the options say.

        Args:
            network: on its device.
            twice: True where its gradient by its input is differentiated again. Compiled code
                can't do that (torch 2.14), so such a network is not compiled.
        """
        player: Player = torch.compile(network) if self.compile and not twice else network
        return Autocast(player) if self.precision == "bf16" else player


def device_names() -> list[str]:
    """The devices of this machine by torch's names: cpu, and cuda, cuda:0 ... where it has GPUs."""
    num_gpus = torch.cuda.device_count()
    return ["cpu", *(["cuda"] if num_gpus else []), *(f"cuda:{i}" for i in range(num_gpus))]


def _keep_freed_memory() -> None:
    """Makes glibc keep freed memory for the next round. Does nothing without glibc.

    By default glibc takes blocks of megabytes from the kernel and gives them back at once. Every
    feature map is such a block, and the kernel fills each page with zeros again: a tenth of the
    time of a DCGAN at 64 pixels (`benchmarks/training/dcgan.py`). The peak of memory is the same.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)  # large blocks come from the heap, not from mappings of their own
        mallopt(_M_TRIM_THRESHOLD, -1)  # and the heap is never given back


class Autocast:
    """A player whose matrix products and convolutions are computed in bfloat16."""

    def __init__(self, player: Player) -> None:
        """player: with float32 parameters."""
        self._player = player

    def __call__(self, *args: Tensor | None, **kwargs: object) -> Any:
        """Calls the player under autocast; parts of its output may be bfloat16."""
        first = args[0]
        assert first is not None
        with torch.autocast(first.device.type, torch.bfloat16):
            return self._player(*args, **kwargs)

    def parameters(self) -> list[Tensor]:
        """The wrapped player's parameters."""
        return parameters_of(self._player)

    def moved(self, by: Sequence[Tensor]) -> "Autocast":
        """The wrapped player moved by the given steps, also under autocast.

        by: one tensor for each parameter; the player must be a `Movable`.
        """
        return Autocast(self._player.moved(by))  # type: ignore[attr-defined]
