"""Directions of w, for generators with a mapping network: SeFa's, and principal components."""

import torch
from torch import Tensor, nn

from models.networks import scale_in_use
from training.interpretation.jacobian import Eigen, eigen

_CHUNK_ROWS = 1024


def sefa(synthesis: nn.Module, w_dim: int, num: int) -> Eigen:
    """Eigenvectors of A^T A, A being the layers that read w, one above the other.

    Shen and Zhou 2021 (arXiv:2007.06600), eq. 5, over all layers; the weights as they act.

    Args:
        synthesis: whose linear layers of width w_dim read w.
        w_dim: width of w.
        num: the most vectors.
    """
    layers = [
        layer
        for layer in synthesis.modules()
        if isinstance(layer, nn.Linear) and layer.in_features == w_dim
    ]
    moment = torch.zeros(w_dim, w_dim, dtype=torch.float64)
    for layer in layers:
        weight = layer.weight.detach().cpu().double() * scale_in_use(layer)
        moment += weight.T @ weight
    return eigen(moment, num)


@torch.no_grad()
def pca(mapping: nn.Module, z: Tensor, label: Tensor | None, num: int) -> Eigen:
    """The principal components of w over latents z [N, z_dim] (+ labels [N]); variances."""
    parts = [
        mapping(z[i : i + _CHUNK_ROWS], None if label is None else label[i : i + _CHUNK_ROWS])
        for i in range(0, len(z), _CHUNK_ROWS)
    ]
    return eigen(torch.cat(parts).double().T.cov(correction=0).cpu(), num)
