"""What an analysis will need of memory, known before it starts, and what there is."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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
_NUM_PASSES_OF_FIELD = 8  # the same where no graph of gradients is kept
_NUM_COPIES = 12  # of all parameters: fields, gradients, products
_MIB = 2**20
KRYLOV = NUM_VECTORS + 10
"""Vectors that a search for eigenvalues holds."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a command holds in memory at once."""

    linearizations: int = 0
    """Graphs of a whole game's derivatives."""
    fields: int = 0
    """Graphs of its losses alone."""
    vectors: float = 0.0
    """Vectors of all parameters, float64."""


@torch.no_grad()
def needed_bytes(
    G: nn.Module, D: nn.Module, z: Tensor, label: Tensor | None, held: Held, packing: int = 1
) -> int:
    """Estimates the peak.

    G, D, z, label: float64. held: at once. packing: images that D sees at once.
    """
    with _activations(G, D) as counted:
        D(packed(G(z, label), packing), label)
    num_parameters = sum(each.numel() for each in (*G.parameters(), *D.parameters()))
    vectors = (held.vectors + _NUM_COPIES) * num_parameters
    passes = _NUM_PASSES * held.linearizations + _NUM_PASSES_OF_FIELD * held.fields
    return int(_BYTES * (vectors + passes * sum(counted)))


def require_memory(need: int, remedy: str) -> None:
    """Raises StabilityError where there is less than is needed. remedy: for the message."""
    available = available_bytes()
    if need > available:
        raise StabilityError(
            f"the analysis needs about {need // _MIB:,} MiB of memory, {available // _MIB:,} MiB "
            f"are available; {remedy}"
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
