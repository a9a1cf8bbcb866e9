import pytest
import torch
from torch import Tensor

from training.play import Batch, Side, play
from training.regularizers import PENALTIES, half_squared_norm

REAL = torch.tensor([[1.0, 2.0], [0.0, -1.0]])[:, None, None]
FAKE = torch.tensor([[3.0, 0.5], [1.0, 1.0]])[:, None, None]


def cubic(img: Tensor, label: Tensor | None) -> Tensor:
    """D(x) = sum x^3 / 3, whose gradient is x^2."""
    return (img**3 / 3).flatten(1).sum(1)


def value(name: str) -> float:
    penalty = PENALTIES[name]
    batch = Batch(real_img=REAL, label=None, z=torch.zeros(2, 1), key=0, step=0)
    return penalty.value(play(cubic, batch, FAKE, gradients=penalty.gradients)).item()


def test_half_squared_norm_is_a_mean_over_images() -> None:
    gradient = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    assert half_squared_norm(gradient).item() == pytest.approx((25 + 1) / 4)


def test_r1_is_half_the_squared_gradient_on_real_images() -> None:
    assert value("r1") == pytest.approx(((1 + 16) + (0 + 1)) / 4)


def test_r2_is_half_the_squared_gradient_on_fake_images() -> None:
    assert value("r2") == pytest.approx(((81 + 0.0625) + (1 + 1)) / 4)


@pytest.mark.parametrize("name", sorted(PENALTIES))
def test_gamma_damps_the_dirac_gan_as_the_paper_says(name: str) -> None:
    """D(x) = psi x, data at 0: gamma/2 |psi|^2, whose gradient by psi is gamma psi."""
    psi = torch.tensor(0.8, requires_grad=True)
    penalty = PENALTIES[name]
    batch = Batch(real_img=torch.zeros(1, 1, 1, 1), label=None, z=torch.zeros(1, 1), key=0, step=0)
    seen = play(
        lambda img, _: psi * img.flatten(1).sum(1),
        batch,
        torch.full((1, 1, 1, 1), 0.3),
        gradients=penalty.gradients,
    )
    gamma = 0.3
    (damping,) = torch.autograd.grad(gamma * penalty.value(seen), psi)
    assert damping.item() == pytest.approx(gamma * 0.8)


@pytest.mark.parametrize("name", sorted(PENALTIES))
def test_each_names_its_paper_and_asks_for_what_it_uses(name: str) -> None:
    penalty = PENALTIES[name]
    sides: set[Side] = {"real", "fake"}
    assert "arXiv:" in penalty.paper
    assert penalty.gradients <= sides
