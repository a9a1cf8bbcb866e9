"""Constraints: what is done to D's weights themselves, where a penalty would act on its loss.

A constraint may change how the weights enter the network, once, when it is made (`install`), and
is applied after every move of D (`apply`). Neither happens inside a forward pass, so that a loss
stays a pure function of the parameters. A new constraint is one more entry.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.utils import parametrize

_FIRST_ITERATIONS = 15
_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding)


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """What keeps D in its class of functions."""

    apply: Callable[[nn.Module, float], None]
    """(network, weight), after each move of D."""
    paper: str
    """Where it is from."""
    install: Callable[[nn.Module, float], None] | None = None
    """(network, weight), once, on newly initialised weights."""
    about: str = "applied to D's weights after each step"
    """What the weight means."""


@torch.no_grad()
def clip(network: nn.Module, bound: float) -> None:
    """Every parameter into [-bound, bound] (Arjovsky et al. 2017, alg. 1)."""
    torch._foreach_clamp_min_(list(network.parameters()), -bound)
    torch._foreach_clamp_max_(list(network.parameters()), bound)


class Spectral(nn.Module):
    """W to weight * W / sigma(W), sigma the largest singular value (Miyato et al. 2018, eq. 8).

    sigma = u^T W v with u and v from power iteration, which `iterate` does: they are constants of
    the forward pass, as in the paper, and part of the network's state.
    """

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor, target: float) -> None:
        """weight: [out, ...], seen as the matrix [out, rest]. target: the norm it shall have."""
        super().__init__()
        self.target = target
        matrix = weight.detach().flatten(1)
        self.register_buffer("u", normalize(torch.randn(len(matrix)).to(weight), dim=0))
        self.register_buffer("v", normalize(torch.randn(matrix.shape[1]).to(weight), dim=0))
        for _ in range(_FIRST_ITERATIONS):
            self.iterate(weight)

    def forward(self, weight: Tensor) -> Tensor:
        """The normalised weight."""
        sigma = torch.dot(self.u, weight.flatten(1).mv(self.v))
        return weight * (self.target / sigma)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Loading a plain weight takes it as it is."""
        return weight

    @torch.no_grad()
    def iterate(self, weight: Tensor) -> None:
        """One step of power iteration (Miyato et al. 2018, alg. 1)."""
        matrix = weight.detach().flatten(1)
        self.v.copy_(normalize(matrix.T.mv(self.u), dim=0))
        self.u.copy_(normalize(matrix.mv(self.v), dim=0))


def spectral(network: nn.Module, target: float) -> None:
    """Normalises every linear, convolutional and embedding weight.

    Raises:
        ValueError: there is none.
    """
    layers = [module for module in network.modules() if isinstance(module, _WEIGHTED)]
    if not layers:
        raise ValueError(
            "regularizers: spectral finds no layer in this family's D; leave it out, or choose "
            "another --network"
        )
    for module in layers:
        normalised = Spectral(module.weight, target)
        parametrize.register_parametrization(module, "weight", normalised, unsafe=True)


def power_iteration(network: nn.Module, target: float) -> None:
    """Lets each u and v follow the weights that have moved."""
    for module in network.modules():
        if isinstance(module, parametrize.ParametrizationList):
            for part in module:
                if isinstance(part, Spectral):
                    part.iterate(module.original)


CONSTRAINTS: dict[str, Constraint] = {
    "clip": Constraint(
        apply=clip,
        paper="Arjovsky et al. 2017, arXiv:1701.07875, alg. 1",
        about="D's weights are clipped to +-weight after each of its steps",
    ),
    "spectral": Constraint(
        install=spectral,
        apply=power_iteration,
        paper="Miyato et al. 2018, arXiv:1802.05957, eq. 8",
        about="each layer of D gets spectral norm = weight, 1 in the paper",
    ),
}
