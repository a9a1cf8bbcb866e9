"""Several processes that train one game: each takes its rows of every batch.

`torchrun --nproc-per-node N -m training.run ...` starts them. Gradients and scalars are averaged
over all processes before a player moves, so every process has the same weights at all times, and a
batch means the same whatever the number of processes. This module knows no loss and no network by
name.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from training.config.rules import NO_MEAN
from training.config.training import TrainingConfig
from training.errors import ConfigError, require
from training.game.objectives import OBJECTIVES
from training.game.penalties import PENALTIES

_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE")


@dataclass(frozen=True, kw_only=True)
class World:
    """The processes of a training."""

    rank: int = 0
    """This process's number; 0 writes the files."""
    size: int = 1
    """How many there are."""
    local_rank: int = 0
    """Its number on this machine, which is its GPU's."""

    @property
    def leads(self) -> bool:
        """True for the process that writes."""
        return self.rank == 0

    def check(self, config: TrainingConfig) -> None:
        """Raises ConfigError where a batch can't be shared out, or a loss can't be averaged."""
        batch_size, accumulate = config.batch_size, config.accumulate
        parts = self.size * accumulate
        if batch_size % parts or batch_size // parts < 2:
            raise ConfigError(
                f"batch_size is {batch_size}, allowed: multiples of {parts} (processes={self.size} "
                f"times accumulate={accumulate}) that leave each 2 images or more; change "
                "--batch-size or the number of processes"
            )
        action = config.watchdog.action
        alone = self.size == 1 or action != "rescue"
        remedy = "a rescue goes back in one process only: set --watchdog.action stop"
        allowed = f"off, warn, stop with processes={self.size}"
        require(alone, "watchdog.action", action, allowed, remedy)
        whole = {"objective": config.objective} if OBJECTIVES[config.objective].whole_batch else {}
        whole |= {
            f"regularizers: {term.name}": term.name
            for term in config.regularizers
            if term.name in PENALTIES and PENALTIES[term.name].whole_batch
        }
        alone, allowed = self.size == 1 or config.packing == 1, f"1 with processes={self.size}"
        require(alone, "packing", config.packing, allowed, "train in one process")
        for field, name in whole.items():
            allowed, remedy = f"without processes={self.size}", f"{NO_MEAN}: train in one process"
            require(self.size == 1, field, name, allowed, remedy)

    def parts(self, accumulate: int) -> range:
        """Returns the numbers of this process's parts of a batch, of size * accumulate."""
        # With a stride, so that one process computes the same batch in size * accumulate parts.
        return range(self.rank, self.size * accumulate, self.size)

    def mean(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Returns each tensor's mean over all processes, the same bits in every one."""
        if self.size == 1:
            return list(tensors)
        # One message: the time of many small ones is all latency.
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.size
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]

    def any(self, flag: bool) -> bool:
        """Returns True in every process if the flag is True in one."""
        if self.size == 1:
            return flag
        votes = torch.tensor([float(flag)], device=_device())
        dist.all_reduce(votes)
        return bool(votes.item())

    def share(self, text: str) -> str:
        """Returns the leading process's text, in every process."""
        if self.size == 1:
            return text
        box = [text]
        dist.broadcast_object_list(box, device=_device())
        return box[0]


@contextmanager
def joined(device: str = "auto") -> Iterator[World]:
    """Joins the processes that torchrun started; without it, this process is alone.

    device: what the training was told to run on. GPUs that it doesn't use are let be.

    Raises:
        ConfigError: there are fewer GPUs than processes.
    """
    if not all(name in os.environ for name in _VARIABLES):
        yield World()
        return
    rank, local_rank, size = (int(os.environ[name]) for name in _VARIABLES)
    backend = "gloo"
    num_gpus = 0 if device == "cpu" else torch.cuda.device_count()
    if num_gpus:
        if local_rank >= num_gpus:
            raise ConfigError(
                f"nproc-per-node is above {local_rank}, allowed: up to {num_gpus}, the GPUs here; "
                "start torchrun with fewer processes"
            )
        torch.cuda.set_device(local_rank)
        backend = "nccl"
    dist.init_process_group(backend)
    try:
        yield World(rank=rank, size=size, local_rank=local_rank)
    finally:
        dist.destroy_process_group()


class CrossRankBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the rows of all processes, twice differentiable and on any device."""

    def forward(self, img: Tensor) -> Tensor:
        """Normalises [N, C, ...] over all dimensions but the second, and over all processes."""
        if not self.training:
            plain: Tensor = super().forward(img)
            return plain
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        dims = [0, *range(2, img.dim())]
        shape = [1, -1, *[1] * (img.dim() - 2)]
        size = dist.get_world_size()
        # In two passes, as E[x^2] - E[x]^2 loses all digits where the mean is large.
        wide = img.float()
        mean = _sum(wide.mean(dims)) / size
        centred = wide - mean.view(shape)
        var = _sum(centred.square().mean(dims)) / size
        with torch.no_grad():
            # The running variance is the unbiased one, as torch's.
            num = img.numel() / img.shape[1] * size
            self.num_batches_tracked += 1
            momentum = self.momentum if self.momentum is not None else 0.1
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(var * (num / (num - 1)), momentum)
        normal = centred * (var + self.eps).rsqrt().view(shape)
        if self.affine:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(img.dtype)

    def _check_input_dim(self, img: Tensor) -> None:
        """Accepts any number of dimensions."""


def span(network: nn.Module, world: World) -> None:
    """Turns each batch norm of the network into a `CrossRankBatchNorm`, in place."""
    if world.size == 1:
        return
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            # By class, so that parameters, buffers and their names stay what checkpoints have.
            module.__class__ = CrossRankBatchNorm  # type: ignore[assignment]


def _sum(values: Tensor) -> Tensor:
    """Sums over all processes; the gradient is summed likewise."""
    total: Tensor = all_reduce(values)  # type: ignore[no-untyped-call]
    return total


def _device() -> torch.device:
    is_nccl = dist.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if is_nccl else torch.device("cpu")
