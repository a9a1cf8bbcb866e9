"""Adversarial objectives: pairs of small pure functions on logits.

Knows no network, no batch and no optimiser. A logit is log(p(real) / p(fake)) as D sees it; with
softplus(x) = log(1 + e^x) every logarithm of a sigmoid is finite in float32 for logits of +-1e4.
A new objective is one more entry.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import softplus

DiscriminatorLoss = Callable[[Tensor, Tensor], Tensor]
"""(real_logits [N], fake_logits [N]) to a scalar; D minimises it."""

GeneratorLoss = Callable[[Tensor, Tensor | None], Tensor]
"""(fake_logits [N], real_logits [N] where `paired`) to a scalar; G minimises it."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What each player minimises."""

    loss_D: DiscriminatorLoss
    """D's loss."""
    loss_G: GeneratorLoss
    """G's loss."""
    paper: str
    """Where it is from."""
    paired: bool = False
    """True where G's loss compares fake with real logits, so that D must judge both for it."""


def binary_D(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-E[log D(real)] - E[log(1 - D(fake))], D = sigmoid(logit) (Goodfellow et al. 2014, eq. 1).

    real_logits, fake_logits: [N] float32. Returns a scalar; D minimises it.
    """
    return softplus(-real_logits).mean() + softplus(fake_logits).mean()


def minimax_G(fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
    """E[log(1 - D(fake))] (Goodfellow et al. 2014, eq. 1): flat where D is sure of itself.

    fake_logits: [N] float32. Returns a scalar; G minimises it.
    """
    return -softplus(fake_logits).mean()


def non_saturating_G(fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
    """-E[log D(fake)] (Goodfellow et al. 2014, sec. 3): steep where D is sure of itself.

    fake_logits: [N] float32. Returns a scalar; G minimises it.
    """
    return softplus(-fake_logits).mean()


OBJECTIVES: dict[str, Objective] = {
    "minimax": Objective(
        loss_D=binary_D, loss_G=minimax_G, paper="Goodfellow et al. 2014, arXiv:1406.2661, eq. 1"
    ),
    "non-saturating": Objective(
        loss_D=binary_D,
        loss_G=non_saturating_G,
        paper="Goodfellow et al. 2014, arXiv:1406.2661, sec. 3",
    ),
}
