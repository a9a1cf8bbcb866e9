"""Initial weights of D, for families whose own are drawn for a normalisation that D may not have.

Where a paper's initialisation belongs to its network (`Family.initialises`), that one stays, and a
recipe's has no say. A new initialisation is one more entry.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from models.networks import Family


@dataclass(frozen=True, kw_only=True)
class Initialization:
    """A way to draw D's first weights."""

    apply: Callable[[nn.Module], None]
    """Draws the weights anew, in place, from the global generator."""
    paper: str
    """Where it is from."""
    draws: bool = True
    """False where it leaves all weights as the family has them."""
    zero_embeddings: bool = False
    """True where label embeddings start at 0."""


def family(network: nn.Module) -> None:
    """Keeps the weights that the network's family drew."""


def kaiming(network: nn.Module) -> None:
    """Draws weights that keep the variance from layer to layer (He et al. 2015, eq. 14).

    DCGAN's N(0, 0.02) relies on batch norm to restore the scale. Without it a narrow D starts so
    flat that G runs ahead and stays there. Label embeddings start at 0, so all classes start equal.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, a=0.2)
        elif isinstance(module, nn.Embedding):
            nn.init.zeros_(module.weight)


def initialise(network: nn.Module, of: Family, name: str) -> None:
    """Draws D's first weights by an entry of INITIALIZATIONS, unless its family has its own."""
    if not of.initialises:
        INITIALIZATIONS[name].apply(network)


INITIALIZATIONS: dict[str, Initialization] = {
    "family": Initialization(apply=family, draws=False, paper="as the network's family has it"),
    "kaiming": Initialization(
        apply=kaiming, paper="He et al. 2015, arXiv:1502.01852", zero_embeddings=True
    ),
}
