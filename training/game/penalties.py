"""Penalties: terms that are added to a player's loss, composable, each a small pure function.

A penalty is a function of one pass through D (`training.game.forward.Forward`). Its entry says what
it needs of that: the gradients of D's logits by images, D's features, or the vector field of the
game. Its weight, interval and schedule are the recipe's. A new penalty is one more entry. What acts
on weights or images instead of losses is in `training.optim.constraints` and
`training.transforms.input_noise`.

dD/dx is the gradient by an image before augmentation and input noise: where these are on, that of
D(T(x)) by x, T what they do to the image (`training.game.losses.Game`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from models.networks.family import widen
from models.networks.row_rng import per_row
from training.game.forward import Forward, parameters_of
from training.game.penalty_points import Point

PATH_DECAY = 0.01
"""Share of a step's mean path length in the running mean (Karras et al. 2020, app. B)."""
_TINY = 1e-12  # under the root: a norm has no gradient at 0


@dataclass(frozen=True, kw_only=True)
class Penalty:
    """One kind of term in a player's loss."""

    player: Literal["D", "G", "both"]
    """The player whose loss it is added to."""
    value: Callable[[Forward], Tensor]
    """Computes the penalty of a pass, a scalar, before its weight."""
    paper: str
    """Where it is from."""
    gradients: frozenset[Point] = frozenset()
    """Points at which it needs D's gradient by the image."""
    features: bool = False
    """True where it compares D's features of real and generated images."""
    whole_batch: bool = False
    """True where it is no mean over images: a batch's isn't the mean of its parts'."""
    below: float = math.inf
    """Bound of its weight times its interval, below which the loss has a minimum."""
    vector_field: bool = False
    """True where it needs each player's gradient as a function of both players' parameters."""
    encodes: bool = False
    """True where it needs a generator with an encoder."""
    undamaged: bool = False
    """True where it compares pixels with real ones, so that those must be whole."""
    maps: bool = False
    """True where it needs a generator with a mapping network, which it differentiates twice."""
    logits: bool = False
    """True where it is computed from D's outputs for both sides' images."""
    classifier: bool = False
    """True where it makes sense only for an objective whose D is a classifier."""

    @property
    def judges(self) -> bool:
        """True where it needs a pass of both sides' images through D."""
        return self.logits or self.features or self.vector_field


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


def r1(forward: Forward) -> Tensor:
    """1/2 E[|dD/dx|^2] on real images; weight gamma (Mescheder et al. 2018, eq. 9)."""
    return half_squared_norm(forward.gradient("real"))


def r2(forward: Forward) -> Tensor:
    """1/2 E[|dD/dx|^2] on generated images; weight gamma (Mescheder et al. 2018, eq. 10)."""
    return half_squared_norm(forward.gradient("fake"))


def wgan_gp(forward: Forward) -> Tensor:
    """E[(|dD/dx| - 1)^2] between real and generated images (Gulrajani et al. 2017, eq. 3)."""
    return one_centred(forward.gradient("interpolated"))


def zero_gp(forward: Forward) -> Tensor:
    """E[|dD/dx|^2] between real and generated images (Thanh-Tung et al. 2019, eq. 8)."""
    return 2 * half_squared_norm(forward.gradient("interpolated"))


def dragan(forward: Forward) -> Tensor:
    """E[(|dD/dx| - 1)^2] around real images (Kodali et al. 2017, sec. 2.2)."""
    return one_centred(forward.gradient("perturbed"))


def consensus(forward: Forward) -> Tensor:
    """1/2 |v|^2, v the gradients of both players (Mescheder et al. 2017, eq. 8)."""
    return 0.5 * torch.stack([part.square().sum() for part in forward.vector_field]).sum()


def feature_matching(forward: Forward) -> Tensor:
    """|E f(real) - E f(fake)|^2, f the last features of D (Salimans et al. 2016, sec. 3.1)."""
    real = forward.features["real"].detach().mean(0)  # G can't change it
    return (real - forward.features["fake"].mean(0)).square().sum()


def label_smoothing(forward: Forward) -> Tensor:
    """Weight s turns the target 1 for real images into 1 - s (Salimans et al. 2016, sec. 3.4).

    (1 - s) softplus(-x) + s softplus(x) = softplus(-x) + s x: only real logits are smoothed.
    """
    assert forward.real_logits is not None
    return forward.real_logits.mean()


def drift(forward: Forward) -> Tensor:
    """E[D(real)^2]: keeps a critic's values near 0 (Karras et al. 2018, app. A.1)."""
    assert forward.real_logits is not None
    return forward.real_logits.square().mean()


def orthogonal_D(forward: Forward) -> Tensor:
    """Off-diagonal part of W W^T over D's weights (Brock et al. 2019, eq. 3)."""
    return _off_diagonal(parameters_of(forward.D))


def orthogonal_G(forward: Forward) -> Tensor:
    """Off-diagonal part of W W^T over G's weights (Brock et al. 2019, eq. 3)."""
    assert forward.G is not None
    return _off_diagonal(parameters_of(forward.G))


def prior(forward: Forward) -> Tensor:
    """KL(N(mu, sigma^2) || N(0, 1)) of the encoder, per image (Kingma and Welling 2014, app. B)."""
    _, mu, logvar = forward.reconstruction
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(1).mean()


def reconstruction(forward: Forward) -> Tensor:
    """1/2 E[(f(x) - f(G(E(x))))^2], f the last features of D (Larsen et al. 2016, eq. 7)."""
    img, _, _ = forward.reconstruction
    _, features = forward.D(
        forward.transform_like_real(img), forward.batch.label, with_features=True
    )
    difference: Tensor = forward.features["real"].detach() - widen(features)
    return 0.5 * difference.square().mean()


def pixel_reconstruction(forward: Forward) -> Tensor:
    """1/2 E[(x - G(E(x)))^2], a mean over pixels in [-1, 1].

    A decoder with Gaussian noise (Kingma and Welling 2014, app. C.2) beside the adversarial loss
    (Rosca et al. 2017, eq. 11, who take |x - G(E(x))|).
    """
    img, _, _ = forward.reconstruction
    return 0.5 * (img - forward.batch.real_img).square().mean()


def path_length(forward: Forward) -> Tensor:
    """E[(|J^T y| - a)^2], J = d image / dw, y normal (Karras et al. 2020, eq. 4).

    The length is the root of the mean over styles of the squares' sums, y is scaled by one over the
    root of the pixels, as in the authors' code; a is the running mean, this batch's share in it.
    """
    assert forward.G is not None
    batch = forward.batch
    img, styles = forward.G(batch.z, batch.label, with_styles=True)
    img = widen(img)
    size, place = img.shape[1:], img.device
    y = per_row(lambda num: torch.randn(num, *size, device=place, dtype=img.dtype), len(img))
    projected = (img * y).sum() / math.sqrt(img.shape[2] * img.shape[3])
    (gradient,) = torch.autograd.grad(projected, styles, create_graph=True)
    lengths = (gradient.square().sum(2).mean(1) + _TINY).sqrt()
    mean = lengths.mean().detach()
    forward.measured["path_length"] = mean
    target = batch.path_length + PATH_DECAY * (mean - batch.path_length)
    penalty: Tensor = (lengths - target).square().mean()
    return penalty


def _off_diagonal(parameters: list[Tensor]) -> Tensor:
    """Sums |W W^T (1 - I)|^2 over the matrices; vectors (biases, norms) are left out."""
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
        vector_field=True,
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
        logits=True,
        classifier=True,
        below=0.5,  # there half is fake's; from 1 on D's loss has no lower bound
        paper="Salimans et al. 2016, arXiv:1606.03498, sec. 3.4 (one-sided)",
    ),
    "drift": Penalty(
        player="D", value=drift, logits=True, paper="Karras et al. 2018, arXiv:1710.10196, app. A.1"
    ),
    "orthogonal": Penalty(
        player="D", value=orthogonal_D, paper="Brock et al. 2019, arXiv:1809.11096, eq. 3"
    ),
    "orthogonal-G": Penalty(
        player="G", value=orthogonal_G, paper="Brock et al. 2019, arXiv:1809.11096, eq. 3"
    ),
    "path-length": Penalty(
        player="G",
        value=path_length,
        maps=True,
        paper="Karras et al. 2020, arXiv:1912.04958, eq. 4",
    ),
    "prior": Penalty(
        player="G",
        value=prior,
        encodes=True,
        paper="Kingma and Welling 2014, arXiv:1312.6114, app. B",
    ),
    "pixel-reconstruction": Penalty(
        player="G",
        value=pixel_reconstruction,
        encodes=True,
        undamaged=True,
        paper="Rosca et al. 2017, arXiv:1706.04987, eq. 11, squared",
    ),
    "reconstruction": Penalty(
        player="G",
        value=reconstruction,
        encodes=True,
        features=True,
        paper="Larsen et al. 2016, arXiv:1512.09300, eq. 7",
    ),
}
