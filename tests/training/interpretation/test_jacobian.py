"""E[J^T J] against generators whose answer is planted, and against differences of every family."""

import math

import pytest
import torch
from torch import Tensor

from tests.models.networks.tiny import TINY, classes, players
from training.interpretation import jacobian
from training.interpretation.jacobian import columns, eigen, pixel_change, second_moment

DIM, PIXELS = 7, 48


def orthonormal(rows: int, dim: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    square = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(square)[0][:rows]


def angle(found: Tensor, planted: Tensor) -> float:
    """The largest angle between two subspaces, given by orthonormal rows."""
    residual = found - (found @ planted.T) @ planted
    return math.asin(min(1.0, float(torch.linalg.matrix_norm(residual, 2))))


def test_the_planted_subspace_of_a_linear_generator_is_found() -> None:
    basis, scale = orthonormal(DIM, DIM, 0), torch.tensor([9, 7, 5, 1e-1, 1e-1, 1e-2, 0.0])
    heights = orthonormal(DIM, PIXELS, 1).T * scale

    def make(z: Tensor, label: Tensor | None) -> Tensor:
        return (z @ basis.T @ heights.T).reshape(-1, 1, 6, 8)

    z = torch.randn(5, DIM, dtype=torch.float64)
    moment = second_moment(make, z)
    found = eigen(moment, 3)
    assert angle(found.vectors, basis[:3]) < 1e-6
    for row in range(3):
        assert angle(found.vectors[row : row + 1], basis[row : row + 1]) < 1e-6
    assert torch.allclose(found.values, torch.tensor([81.0, 49.0, 25.0], dtype=torch.float64))
    assert torch.allclose(pixel_change(make, z, found.vectors), found.values)
    largest = found.vectors.gather(1, found.vectors.abs().argmax(1, keepdim=True))
    assert (largest > 0).all()


def test_it_is_a_mean_over_latents_and_labels() -> None:
    def make(z: Tensor, label: Tensor | None) -> Tensor:
        assert label is not None
        slope = torch.where(label == 0, 1.0, 3.0)[:, None]
        return (slope * z * z).reshape(-1, 1, 1, 2)

    z = torch.tensor([[1.0, 2.0], [3.0, 5.0]], dtype=torch.float64)
    moment = second_moment(make, z, torch.tensor([0, 1]))
    # J is diagonal: 2 * slope * z.
    assert torch.allclose(
        moment, torch.diag(torch.tensor([(4 + 324) / 2, (16 + 900) / 2]).double())
    )


@pytest.mark.parametrize("name", TINY)
def test_the_columns_of_every_family_are_its_differences(name: str) -> None:
    num_classes = classes(name)
    G, _ = players(name, num_classes=num_classes)
    G = G.double().eval().requires_grad_(False)
    z = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    label = torch.tensor([0, 1, 2]) if num_classes else None
    u = torch.eye(5, dtype=torch.float64)[:2]
    found = columns(G, z, u, label)
    step = 1e-6
    for row, direction in enumerate(u):
        ahead, behind = G(z + step * direction, label), G(z - step * direction, label)
        difference = ((ahead - behind) / (2 * step)).flatten(1)
        assert torch.allclose(found[row], difference, atol=1e-5, rtol=1e-4)
    assert found.abs().max() > 1e-4


def test_chunks_don_t_change_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    G, _ = players("dcgan")
    G = G.eval().requires_grad_(False)
    z = torch.randn(6, 5, generator=torch.Generator().manual_seed(3))
    whole = second_moment(G, z)
    monkeypatch.setattr(jacobian, "_JACOBIAN_BYTES", 1)
    assert torch.allclose(second_moment(G, z), whole, rtol=1e-4)


def test_large_images_get_fewer_latents_and_are_averaged_down() -> None:
    assert jacobian.num_latents(64, 1024) == 256
    assert 16 <= jacobian.num_latents(128, 64 * 64 * 3) < 256
    assert jacobian.num_latents(512, 3 * 128**2) == 16
    img = torch.arange(2 * 256 * 300.0).reshape(1, 2, 256, 300)
    assert jacobian.pooled(img).shape == (1, 2, 86, 100)
    assert jacobian.pooled(img[..., :128, :128]).shape == (1, 2, 128, 128)
