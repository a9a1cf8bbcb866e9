"""Constraints: they act on D's weights themselves, where a penalty acts on its loss.

A constraint may change how the weights enter the network, once, when it is made (`install`), and is
applied after every move of D (`apply`). Neither happens inside a forward pass, so that a loss stays
a pure function of the parameters. A new constraint is one more entry.

What is bounded is the weight that acts. Layers of equalised rate multiply theirs when they use it
(`models.networks.scale_in_use`): a bound on the stored weight alone would leave a D of forty layers
with logits of 1e-12.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.utils import parametrize

from models.networks import scale_in_use

_FIRST_ITERATIONS = 15
_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding)


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """A bound on D's weights, which keeps D in a class of functions."""

    apply: Callable[[nn.Module, float], None]
    """Is given (network, weight) after each move of D."""
    paper: str
    """Where it is from."""
    install: Callable[[nn.Module, float], None] | None = None
    """Is given (network, weight) once, with newly initialised weights."""
    normalizes: bool = False
    """True where it divides each weight by its norm: none may start at 0, and no other constraint
    may set the size of weights."""
    about: str = "applied to D's weights after each step"
    """What the weight means."""


@torch.no_grad()
def clip(network: nn.Module, bound: float) -> None:
    """Clips every parameter, as it is used, to [-bound, bound] (Arjovsky et al. 2017, alg. 1)."""
    parameters: list[Tensor] = list(network.parameters())
    scales: dict[Tensor, float] = {
        module.weight: scale_in_use(module)
        for module in network.modules()
        if isinstance(module, _WEIGHTED)
    }
    bounds = [bound / scales.get(parameter, 1.0) for parameter in parameters]
    torch._foreach_clamp_min_(parameters, [-each for each in bounds])
    torch._foreach_clamp_max_(parameters, bounds)


class Spectral(nn.Module):
    """W to weight * W / sigma(W), sigma the largest singular value (Miyato et al. 2018, eq. 8).

    sigma = u^T W v with u and v from power iteration, which `iterate` does: they are constants of
    the forward pass, as in the paper, and part of the network's state.
    """

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor, target: float) -> None:
        """weight: [out, ...], taken as the matrix [out, rest]. target: its norm afterwards."""
        super().__init__()
        self.target = target
        matrix = weight.detach().flatten(1)
        self.register_buffer("u", normalize(torch.randn(len(matrix)).to(weight), dim=0))
        self.register_buffer("v", normalize(torch.randn(matrix.shape[1]).to(weight), dim=0))
        # Random vectors underestimate sigma: a first D would be several times too steep.
        for _ in range(_FIRST_ITERATIONS):
            self.iterate(weight)

    def forward(self, weight: Tensor) -> Tensor:
        """Returns weight * target / sigma, differentiable through sigma, too."""
        # u and v are constants, but sigma is not: the gradient runs through it, as in the paper.
        sigma = torch.dot(self.u, weight.flatten(1).mv(self.v))
        return weight * (self.target / sigma)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Returns a weight that is assigned from outside as it is."""
        return weight

    @torch.no_grad()
    def iterate(self, weight: Tensor) -> None:
        """Takes one step of power iteration (Miyato et al. 2018, alg. 1)."""
        matrix = weight.detach().flatten(1)
        self.v.copy_(normalize(matrix.T.mv(self.u), dim=0))
        self.u.copy_(normalize(matrix.mv(self.v), dim=0))


def spectral(network: nn.Module, target: float) -> None:
    """Installs `Spectral` on every linear, convolutional and embedding weight.

    Raises:
        ValueError: there is none, or one is 0 and has no norm to divide by.
    """
    layers = [module for module in network.modules() if isinstance(module, _WEIGHTED)]
    if not layers:
        raise ValueError(
            "regularizers: spectral finds no layer in this family's D; leave it out, or choose "
            "another --network"
        )
    named = [(name, each) for name, each in network.named_modules() if each in layers]
    closed = [name for name, module in named if _is_0(module)]
    if closed:
        raise ValueError(
            f"regularizers: spectral finds {len(closed)} layers of D at 0, as {closed[0]}, which "
            "have no norm to divide by; leave it out, or choose another --network"
        )
    for module in layers:
        normalised = Spectral(module.weight, target / scale_in_use(module))
        # unsafe: skips torch's trial runs of the parametrisation, which change nothing here.
        parametrize.register_parametrization(module, "weight", normalised, unsafe=True)


def _is_0(module: nn.Module) -> bool:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return not weight.any()


def power_iteration(network: nn.Module, target: float) -> None:
    """Takes a step of power iteration in each layer, after its weight has moved."""
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
        normalizes=True,
        paper="Miyato et al. 2018, arXiv:1802.05957, eq. 8",
        about="each layer of D gets spectral norm = weight, 1 in the paper",
    ),
}
