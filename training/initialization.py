"""Initial weights of D, where a recipe wants others than the network's family draws.

A new initialisation is one more entry. Knows networks as modules only.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from models.networks.layers import EqualizedConv2d


@dataclass(frozen=True, kw_only=True)
class Initialization:
    """How D starts."""

    apply: Callable[[nn.Module], None]
    """Draws the weights anew, in place, from the global generator."""
    paper: str
    """Where it is from."""


def family(network: nn.Module) -> None:
    """Leaves what the network's family drew."""


def kaiming(network: nn.Module) -> None:
    """Keeps the variance from layer to layer (He et al. 2015, eq. 14); labels start equal.

    DCGAN's N(0, 0.02) counts on batch norm to restore the scale. Without it a narrow D starts so
    flat that G runs ahead and stays there. Layers that scale when they are used keep their weights:
    they have this variance already. So do layers that start at 0: a branch that is to open later.
    """
    for module in network.modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, EqualizedConv2d) or (weight is not None and not weight.any()):
            continue
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, a=0.2)
        elif isinstance(module, nn.Embedding):
            nn.init.zeros_(module.weight)


INITIALIZATIONS: dict[str, Initialization] = {
    "family": Initialization(apply=family, paper="as the network's family has it"),
    "kaiming": Initialization(apply=kaiming, paper="He et al. 2015, arXiv:1502.01852"),
}
