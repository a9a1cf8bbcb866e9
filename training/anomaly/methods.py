"""Methods without a GAN that say how unusual an image is: each learns from usual images alone.

A method is one entry of METHODS: a function from training images to a function that scores others.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.networks import ImageShape
from training.anomaly.autoencoder import errors, fitted, of_size

Floats = npt.NDArray[np.float64]
Score = Callable[[Tensor], Floats]
"""Images [N, C, H, W] in [-1, 1] to scores [N]: the higher, the more unusual."""
NEIGHBOURS = 5
VARIANCE = 0.9


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a method may learn from."""

    x: Tensor
    """Usual images, [N, C, H, W] in [-1, 1]."""
    z_dim: int
    """Numbers in the latent of the model that it is compared with."""
    num_parameters: int
    """Parameters of that model's generator and encoder together."""
    autoencoder_kimg: float
    seed: int


def nearest(given: Given) -> Score:
    """Mean distance to the five nearest training images, in pixels."""
    from sklearn.neighbors import NearestNeighbors

    num = min(NEIGHBOURS, len(given.x))
    index = NearestNeighbors(n_neighbors=num, algorithm="brute").fit(_flat(given.x))

    def score(x: Tensor) -> Floats:
        found: Floats = index.kneighbors(_flat(x))[0].mean(1).astype(np.float64)
        return found

    return score


def pca(given: Given) -> Score:
    """Mean squared distance to the plane that has 0.9 of the training images' variance."""
    from sklearn.decomposition import PCA

    plane = PCA(n_components=VARIANCE, svd_solver="full").fit(_flat(given.x))

    def score(x: Tensor) -> Floats:
        flat = _flat(x)
        there = plane.inverse_transform(plane.transform(flat))
        found: Floats = np.square(flat - there).mean(1).astype(np.float64)
        return found

    return score


def autoencoder(given: Given) -> Score:
    """Reconstruction error of an autoencoder of equal size, with as wide a bottleneck."""
    _, channels, height, width = given.x.shape
    torch.manual_seed(given.seed)
    shape = ImageShape(resolution=(height, width), channels=channels)
    network = of_size(shape, given.z_dim, given.num_parameters)
    fitted(network, given.x, kimg=given.autoencoder_kimg, seed=given.seed)
    return lambda x: errors(network, x)


METHODS: dict[str, Callable[[Given], Score]] = {
    "pixel kNN": nearest,
    "PCA": pca,
    "autoencoder": autoencoder,
}


def _flat(x: Tensor) -> npt.NDArray[np.float32]:
    return x.flatten(1).numpy()
