"""Frechet distance of Gaussians fitted to features (Dowson and Landau 1982; Heusel et al. 2017).

Only with Inception's features is it called FID. This module works on arrays from anywhere.
"""

import numpy as np
import numpy.typing as npt

from training.errors import ConfigError
from training.evaluation.metrics.bootstrap import Estimate, Resampling, two_sample
from training.evaluation.metrics.neighbours import shifted

Floats = npt.NDArray[np.float64]


def frechet_distance(
    real: npt.NDArray[np.floating],
    fake: npt.NDArray[np.floating],
    resampling: Resampling | None = None,
) -> Estimate:
    """|mu_r - mu_f|^2 + tr(S_r + S_f - 2 (S_r S_f)^(1/2)) (Heusel et al. 2017, eq. 6).

    Args:
        real: features [N, d].
        fake: features [M, d].
        resampling: for the interval; no interval by default.

    Raises:
        ConfigError: there are at most d samples, so that a covariance hasn't full rank.
    """
    check_rank("frechet_distance", min(len(real), len(fake)), real.shape[1])
    near_real, near_fake = shifted(real, fake)

    def distance(real_weights: Floats, fake_weights: Floats) -> float:
        return of_gaussians(*moments(near_real, real_weights), *moments(near_fake, fake_weights))

    return two_sample(distance, len(real), len(fake), resampling or Resampling(), least=0.0)


def check_rank(measure: str, num_samples: int, num_features: int) -> None:
    """Raises ConfigError unless there are more samples than features. measure: for the message."""
    if num_samples <= num_features:
        raise ConfigError(
            f"num_images is {num_samples}, allowed for {measure}: more than the {num_features} "
            "features, or their covariance has not full rank; take more images, or features of "
            "fewer dimensions, or leave the measure out"
        )


def moments(features: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Mean [d] and covariance [d, d] (divided by n - 1) of features [N, d] with weights [N]."""
    total = weights.sum()
    mean = weights @ features / total
    second = (features * weights[:, None]).T @ features
    return mean, (second - total * np.outer(mean, mean)) / (total - 1)


def of_gaussians(mean_a: Floats, cov_a: Floats, mean_b: Floats, cov_b: Floats) -> float:
    """The squared Frechet distance of two Gaussians, from eigenvalues of symmetric matrices only.

    Uses tr (A B)^(1/2) = tr (A^(1/2) B A^(1/2))^(1/2), since a general matrix root fails or turns
    complex where a covariance is nearly singular.
    """
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    product = np.linalg.eigvalsh(root @ cov_b @ root)
    cross = float(np.sqrt(np.clip(product, 0, None)).sum())
    difference = mean_a - mean_b
    total = float(difference @ difference + np.trace(cov_a) + np.trace(cov_b)) - 2 * cross
    return max(0.0, total)
