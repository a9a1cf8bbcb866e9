"""Adversarial objectives: pairs of small pure functions on logits.

Where D is a classifier, its logit is log(p(real) / p(fake)) as D sees it; with softplus(x) =
log(1 + e^x) every logarithm of a sigmoid is finite in float32 for logits of +-1e4. A new objective
is one more entry. This module knows no network, no batch and no optimiser.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import relu, softplus

DiscriminatorLoss = Callable[[Tensor, Tensor], Tensor]
"""(real_logits [N], fake_logits [N]) to a scalar; D minimises it."""

GeneratorLoss = Callable[[Tensor, Tensor | None], Tensor]
"""(fake_logits [N], real_logits [N] where `paired`) to a scalar; G minimises it."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The losses of both players, and what others must know of them."""

    loss_D: DiscriminatorLoss
    """D's loss."""
    loss_G: GeneratorLoss
    """G's loss."""
    paper: str
    """Where it is from."""
    paired: bool = False
    """True where losses compare fake with real logits, so that G's loss needs both."""
    signed: bool = False
    """True where D's logit is drawn above 0 for real images and below for generated ones."""
    logistic: bool = False
    """True where D's probability is a sigmoid: of a logit or, if `paired`, of a difference."""
    whole_batch: bool = False
    """True where it is no mean over images or pairs: a batch's isn't the mean of its parts'."""

    @property
    def classifier(self) -> bool:
        """True where sigmoid(logit) is D's probability that one image is real."""
        return self.logistic and not self.paired


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


def least_squares_D(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """1/2 E[(D(real) - 1)^2] + 1/2 E[D(fake)^2] (Mao et al. 2017, eq. 9).

    real_logits, fake_logits: [N] float32. Returns a scalar; D minimises it.
    """
    return 0.5 * (real_logits - 1).square().mean() + 0.5 * fake_logits.square().mean()


def least_squares_G(fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
    """1/2 E[(D(fake) - 1)^2] (Mao et al. 2017, eq. 9): pulls also what D takes for real.

    fake_logits: [N] float32. Returns a scalar; G minimises it.
    """
    return 0.5 * (fake_logits - 1).square().mean()


def wasserstein_D(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """E[D(fake)] - E[D(real)] (Arjovsky et al. 2017, eq. 2): -W1 times D's Lipschitz constant.

    real_logits, fake_logits: [N] float32. Returns a scalar; D minimises it.
    """
    return fake_logits.mean() - real_logits.mean()


def critic_G(fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
    """-E[D(fake)], G's side of the Wasserstein and the hinge objective.

    fake_logits: [N] float32. Returns a scalar; G minimises it.
    """
    return -fake_logits.mean()


def hinge_D(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """E[max(0, 1 - D(real))] + E[max(0, 1 + D(fake))] (Miyato et al. 2018, eq. 16).

    real_logits, fake_logits: [N] float32. Returns a scalar; D minimises it.
    """
    return relu(1 - real_logits).mean() + relu(1 + fake_logits).mean()


def relativistic_D(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-E[log sigmoid(D(real) - D(fake))] over pairs (Jolicoeur-Martineau 2019, eq. 3).

    Row i of one is compared with row i of the other (Huang et al. 2024, eq. 2).
    real_logits, fake_logits: [N] float32. Returns a scalar; D minimises it.
    """
    return softplus(fake_logits - real_logits).mean()


def relativistic_G(fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
    """-E[log sigmoid(D(fake) - D(real))] over pairs (Jolicoeur-Martineau 2019, eq. 4).

    fake_logits, real_logits: [N] float32. Returns a scalar; G minimises it.
    """
    assert real_logits is not None
    return softplus(real_logits - fake_logits).mean()


def average_D(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-E[log sigmoid(real)] - E[log(1 - sigmoid(fake))], each logit less the other side's mean.

    RaSGAN of Jolicoeur-Martineau 2019, whose code halves it.
    real_logits, fake_logits: [N] float32 of a whole batch. Returns a scalar; D minimises it.
    """
    return binary_D(real_logits - fake_logits.mean(), fake_logits - real_logits.mean())


def average_G(fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
    """D's loss with both sides exchanged: real images are to look less real than the average fake.

    RaSGAN of Jolicoeur-Martineau 2019, whose code halves it.
    fake_logits, real_logits: [N] float32 of a whole batch. Returns a scalar; G minimises it.
    """
    assert real_logits is not None
    return average_D(fake_logits, real_logits)


def average_hinge_D(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """E[max(0, 1 - real)] + E[max(0, 1 + fake)], each logit less the other side's mean.

    RaHingeGAN of Jolicoeur-Martineau 2019, whose code halves it.
    real_logits, fake_logits: [N] float32 of a whole batch. Returns a scalar; D minimises it.
    """
    return hinge_D(real_logits - fake_logits.mean(), fake_logits - real_logits.mean())


def average_hinge_G(fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
    """D's loss with both sides exchanged: unlike plain hinge, it is bounded for G, too.

    RaHingeGAN of Jolicoeur-Martineau 2019, whose code halves it.
    fake_logits, real_logits: [N] float32 of a whole batch. Returns a scalar; G minimises it.
    """
    assert real_logits is not None
    return average_hinge_D(fake_logits, real_logits)


OBJECTIVES: dict[str, Objective] = {
    "minimax": Objective(
        loss_D=binary_D,
        loss_G=minimax_G,
        logistic=True,
        signed=True,
        paper="Goodfellow et al. 2014, arXiv:1406.2661, eq. 1",
    ),
    "non-saturating": Objective(
        loss_D=binary_D,
        loss_G=non_saturating_G,
        logistic=True,
        signed=True,
        paper="Goodfellow et al. 2014, arXiv:1406.2661, sec. 3",
    ),
    "least-squares": Objective(
        loss_D=least_squares_D,
        loss_G=least_squares_G,
        paper="Mao et al. 2017, arXiv:1611.04076, eq. 9",
    ),
    "wasserstein": Objective(
        loss_D=wasserstein_D,
        loss_G=critic_G,
        paper="Arjovsky et al. 2017, arXiv:1701.07875, eq. 2",
    ),
    "hinge": Objective(
        loss_D=hinge_D,
        loss_G=critic_G,
        signed=True,
        paper="Lim and Ye 2017, arXiv:1705.02894; Miyato et al. 2018, arXiv:1802.05957, eq. 16",
    ),
    "relativistic": Objective(
        loss_D=relativistic_D,
        loss_G=relativistic_G,
        paired=True,
        logistic=True,
        paper="Jolicoeur-Martineau 2019, arXiv:1807.00734; Huang et al. 2024, arXiv:2501.05441",
    ),
    "relativistic-average": Objective(
        loss_D=average_D,
        loss_G=average_G,
        paired=True,
        logistic=True,
        whole_batch=True,
        paper="Jolicoeur-Martineau 2019, arXiv:1807.00734, RaSGAN",
    ),
    "relativistic-average-hinge": Objective(
        loss_D=average_hinge_D,
        loss_G=average_hinge_G,
        paired=True,
        whole_batch=True,
        paper="Jolicoeur-Martineau 2019, arXiv:1807.00734, RaHingeGAN",
    ),
}
