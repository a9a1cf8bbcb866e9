"""Penalties: terms that are added to a player's loss, composable, each a small pure function.

A penalty sees one play (`training.play`) and says what it needs of it: the gradients of D's logits
by images, D's features, or the field of the game. Its weight, interval and schedule are the
recipe's. A new penalty is one more entry. What acts on weights or images instead of losses is in
`training.constraints` and `training.views`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from training.play import Play, parameters_of
from training.sites import Site

_TINY = 1e-12  # under the root: a norm has no gradient at 0


@dataclass(frozen=True, kw_only=True)
class Penalty:
    """One term of a player's loss."""

    player: Literal["D", "G", "both"]
    """Whose loss it is added to."""
    value: Callable[[Play], Tensor]
    """The play to a scalar, before its weight."""
    paper: str
    """Where it is from."""
    gradients: frozenset[Site] = frozenset()
    """Images by which it needs the gradients of D's logits."""
    features: bool = False
    """True where it compares D's features of real and generated images."""
    whole_batch: bool = False
    """True where it is no mean over images: a batch's isn't the mean of its parts'."""
    below: float = math.inf
    """What its weight times its interval must stay below, for the loss to have a minimum."""
    field: bool = False
    """True where it needs each player's gradient as a function of both players' parameters."""
    encodes: bool = False
    """True where it needs a generator with an encoder."""
    classifier: bool = False
    """True where it makes sense only for an objective whose D is a classifier."""


def half_squared_norm(gradient: Tensor) -> Tensor:
    """1/2 E[|gradient|^2], the norm over all but the first dimension.

    gradient: [N, ...] float32. Returns a scalar.
    """
    return 0.5 * gradient.square().sum() / len(gradient)


def one_centred(gradient: Tensor) -> Tensor:
    """E[(|gradient| - 1)^2], the norm over all but the first dimension.

    gradient: [N, ...] float32. Returns a scalar.
    """
    norm = (gradient.flatten(1).square().sum(1) + _TINY).sqrt()
    return (norm - 1).square().mean()


def r1(play: Play) -> Tensor:
    """1/2 E[|dD/dx|^2] on real images; weight gamma (Mescheder et al. 2018, eq. 9)."""
    return half_squared_norm(play.gradient("real"))


def r2(play: Play) -> Tensor:
    """1/2 E[|dD/dx|^2] on generated images; weight gamma (Mescheder et al. 2018, eq. 10)."""
    return half_squared_norm(play.gradient("fake"))


def wgan_gp(play: Play) -> Tensor:
    """E[(|dD/dx| - 1)^2] between real and generated images (Gulrajani et al. 2017, eq. 3)."""
    return one_centred(play.gradient("interpolated"))


def zero_gp(play: Play) -> Tensor:
    """E[|dD/dx|^2] between real and generated images (Thanh-Tung et al. 2019, eq. 8)."""
    return 2 * half_squared_norm(play.gradient("interpolated"))


def dragan(play: Play) -> Tensor:
    """E[(|dD/dx| - 1)^2] around real images (Kodali et al. 2017, sec. 2.2)."""
    return one_centred(play.gradient("perturbed"))


def consensus(play: Play) -> Tensor:
    """1/2 |v|^2, v the gradients of both players (Mescheder et al. 2017, eq. 8)."""
    return 0.5 * torch.stack([part.square().sum() for part in play.field]).sum()


def feature_matching(play: Play) -> Tensor:
    """|E f(real) - E f(fake)|^2, f the last features of D (Salimans et al. 2016, sec. 3.1)."""
    real = play.features["real"].detach().mean(0)
    return (real - play.features["fake"].mean(0)).square().sum()


def label_smoothing(play: Play) -> Tensor:
    """Weight s turns the target 1 for real images into 1 - s (Salimans et al. 2016, sec. 3.4).

    (1 - s) softplus(-x) + s softplus(x) = softplus(-x) + s x: only real logits are smoothed.
    """
    assert play.real_logits is not None
    return play.real_logits.mean()


def drift(play: Play) -> Tensor:
    """E[D(real)^2]: keeps a critic's values near 0 (Karras et al. 2018, app. A.1)."""
    assert play.real_logits is not None
    return play.real_logits.square().mean()


def orthogonal_D(play: Play) -> Tensor:
    """Off-diagonal part of W W^T over D's weights (Brock et al. 2019, eq. 3)."""
    return _off_diagonal(parameters_of(play.D))


def orthogonal_G(play: Play) -> Tensor:
    """Off-diagonal part of W W^T over G's weights (Brock et al. 2019, eq. 3)."""
    assert play.G is not None
    return _off_diagonal(parameters_of(play.G))


def prior(play: Play) -> Tensor:
    """KL(N(mu, sigma^2) || N(0, 1)) of the encoder, per image (Kingma and Welling 2014, app. B)."""
    _, mu, logvar = play.reconstruction
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(1).mean()


def reconstruction(play: Play) -> Tensor:
    """1/2 E[(f(x) - f(G(E(x))))^2], f the last features of D (Larsen et al. 2016, eq. 7)."""
    img, _, _ = play.reconstruction
    _, features = play.D(play.beside_real(img), play.batch.label, with_features=True)
    difference: Tensor = play.features["real"].detach() - features.float()
    return 0.5 * difference.square().mean()


def _off_diagonal(parameters: list[Tensor]) -> Tensor:
    """Sum over matrices of |W W^T (1 - I)|^2; vectors (biases, norms) are left out."""
    terms = []
    for weight in parameters:
        if weight.dim() > 1 and len(weight) > 1:
            rows = weight.flatten(1)
            gram = rows @ rows.T
            terms.append(gram.square().sum() - gram.diagonal().square().sum())
    return torch.stack(terms).sum()


PENALTIES: dict[str, Penalty] = {
    "r1": Penalty(
        player="D",
        value=r1,
        gradients=frozenset({"real"}),
        paper="Mescheder et al. 2018, arXiv:1801.04406, eq. 9",
    ),
    "r2": Penalty(
        player="D",
        value=r2,
        gradients=frozenset({"fake"}),
        paper="Mescheder et al. 2018, arXiv:1801.04406, eq. 10",
    ),
    "wgan-gp": Penalty(
        player="D",
        value=wgan_gp,
        gradients=frozenset({"interpolated"}),
        paper="Gulrajani et al. 2017, arXiv:1704.00028, eq. 3",
    ),
    "zero-gp": Penalty(
        player="D",
        value=zero_gp,
        gradients=frozenset({"interpolated"}),
        paper="Thanh-Tung et al. 2019, arXiv:1902.03984, eq. 8",
    ),
    "dragan": Penalty(
        player="D",
        value=dragan,
        gradients=frozenset({"perturbed"}),
        paper="Kodali et al. 2017, arXiv:1705.07215, sec. 2.2",
    ),
    "consensus": Penalty(
        player="both",
        value=consensus,
        field=True,
        whole_batch=True,
        paper="Mescheder et al. 2017, arXiv:1705.10461, eq. 8",
    ),
    "feature-matching": Penalty(
        player="G",
        value=feature_matching,
        features=True,
        whole_batch=True,
        paper="Salimans et al. 2016, arXiv:1606.03498, sec. 3.1",
    ),
    "label-smoothing": Penalty(
        player="D",
        value=label_smoothing,
        classifier=True,
        below=0.5,  # there half is fake's; from 1 on D's loss has no lower bound
        paper="Salimans et al. 2016, arXiv:1606.03498, sec. 3.4 (one-sided)",
    ),
    "drift": Penalty(
        player="D", value=drift, paper="Karras et al. 2018, arXiv:1710.10196, app. A.1"
    ),
    "orthogonal": Penalty(
        player="D", value=orthogonal_D, paper="Brock et al. 2019, arXiv:1809.11096, eq. 3"
    ),
    "orthogonal-G": Penalty(
        player="G", value=orthogonal_G, paper="Brock et al. 2019, arXiv:1809.11096, eq. 3"
    ),
    "prior": Penalty(
        player="G",
        value=prior,
        encodes=True,
        paper="Kingma and Welling 2014, arXiv:1312.6114, app. B",
    ),
    "reconstruction": Penalty(
        player="G",
        value=reconstruction,
        encodes=True,
        features=True,
        paper="Larsen et al. 2016, arXiv:1512.09300, eq. 7",
    ),
}
