import pytest
import torch
from torch import Tensor

from training.optim.optimizers import OptimizerConfig, advance, build
from training.optim.unrolled import Adam, descent

CONFIG = OptimizerConfig(lr=0.1, betas=(0.5, 0.9), eps=1e-8)


def gradient(x: Tensor, scale: Tensor | float) -> Tensor:
    """Of scale * (x1^4 + x2^2), which changes along the way."""
    return scale * torch.stack([4 * x[0] ** 3, 2 * x[1]])


@pytest.mark.parametrize("before", [0, 3])
def test_unrolled_steps_are_those_that_torchs_adam_would_take(before: int) -> None:
    x = torch.tensor([0.7, -1.3], requires_grad=True)
    optimizer = build([x], CONFIG)
    for _ in range(before):
        advance(optimizer, [gradient(x.detach(), 1.0)], torch.zeros(()))
    unrolled, position = Adam(optimizer, 0.1), x.detach().clone()
    for _ in range(4):
        (step,) = unrolled([gradient(position, 1.0)])
        position = position + step
    for _ in range(4):
        advance(optimizer, [gradient(x.detach(), 1.0)], torch.zeros(()))
    torch.testing.assert_close(position, x.detach(), rtol=1e-5, atol=1e-6)


def test_they_are_differentiable_and_leave_the_optimiser_alone() -> None:
    x = torch.tensor([0.7, -1.3], dtype=torch.float64, requires_grad=True)
    optimizer = build([x], CONFIG)
    advance(optimizer, [gradient(x.detach(), 1.0)], torch.zeros(()))
    kept = {name: value.clone() for name, value in optimizer.state[x].items()}

    def end(scale: Tensor) -> Tensor:
        unrolled, position = Adam(optimizer, 0.1), x.detach().clone()
        for _ in range(3):
            (step,) = unrolled([gradient(position, scale)])
            position = position + step
        return position

    scale = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(end, (scale,))
    assert all(torch.equal(value, kept[name]) for name, value in optimizer.state[x].items())


def test_a_gradient_of_zero_has_a_derivative() -> None:
    x = torch.zeros(2, requires_grad=True)
    given = torch.zeros(2, requires_grad=True)
    (step,) = Adam(build([x], CONFIG), 0.1)([given])
    (slope,) = torch.autograd.grad(step.sum(), given)
    assert slope.isfinite().all()


def test_plain_descent() -> None:
    assert descent(0.5)([torch.tensor(3.0)]) == [torch.tensor(-1.5)]
