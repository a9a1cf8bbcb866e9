"""What an analysis will need of memory, known before it starts, and what there is."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from training.errors import StabilityError
from training.game.forward import packed
from training.memory import available_bytes
from training.stability.spectrum import NUM_VECTORS

_BYTES = 8  # float64
_NUM_PASSES = 24
"""Tensors of an activation's size that the graphs of both players' losses, of their gradients and
of the products keep at once, for each activation of one pass: a rough count, not measured."""
_NUM_COPIES = 12  # of all parameters: fields, gradients, products
_MIB = 2**20


@torch.no_grad()
def needed_bytes(
    G: nn.Module, D: nn.Module, z: Tensor, label: Tensor | None, size: int, packing: int = 1
) -> int:
    """Estimates the peak.

    G, D, z, label: float64. size: of the vectors that ARPACK keeps. packing: images that D sees at
    once.
    """
    with _activations(G, D) as counted:
        D(packed(G(z, label), packing), label)
    num_parameters = sum(each.numel() for each in (*G.parameters(), *D.parameters()))
    vectors = (NUM_VECTORS + 10) * size + _NUM_COPIES * num_parameters
    return _BYTES * (vectors + _NUM_PASSES * sum(counted))


def require_memory(need: int) -> None:
    """Raises StabilityError where there is less than is needed."""
    available = available_bytes()
    if need > available:
        raise StabilityError(
            f"the analysis needs about {need // _MIB:,} MiB of memory, {available // _MIB:,} MiB "
            "are available; set a smaller --batch-size"
        )


@contextmanager
def _activations(*networks: nn.Module) -> Iterator[list[int]]:
    """Collects the sizes of all layers' outputs inside the block."""
    counted: list[int] = []

    def count(module: nn.Module, args: object, output: object) -> None:
        if isinstance(output, Tensor):
            counted.append(output.numel())

    leaves = [m for network in networks for m in network.modules() if not list(m.children())]
    hooks = [module.register_forward_hook(count) for module in leaves]
    try:
        yield counted
    finally:
        for hook in hooks:
            hook.remove()
