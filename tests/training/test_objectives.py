import math

import pytest
import torch

from training.objectives import OBJECTIVES

REAL = torch.tensor([1.0, -2.0])
FAKE = torch.tensor([0.5, 3.0])


def log_sigmoid(x: float) -> float:
    return -math.log(1 + math.exp(-x))


def test_d_minimises_binary_cross_entropy() -> None:
    expected = -(log_sigmoid(1.0) + log_sigmoid(-2.0)) / 2
    expected -= (log_sigmoid(-0.5) + log_sigmoid(-3.0)) / 2
    for name in ("minimax", "non-saturating"):
        assert OBJECTIVES[name].loss_D(REAL, FAKE).item() == pytest.approx(expected, rel=1e-6)


def test_g_of_minimax_minimises_log_one_minus_d() -> None:
    expected = (log_sigmoid(-0.5) + log_sigmoid(-3.0)) / 2
    assert OBJECTIVES["minimax"].loss_G(FAKE, None).item() == pytest.approx(expected, rel=1e-6)


def test_non_saturating_g_maximises_log_d() -> None:
    expected = -(log_sigmoid(0.5) + log_sigmoid(3.0)) / 2
    loss = OBJECTIVES["non-saturating"].loss_G(FAKE, None)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_losses_and_gradients_stay_finite_for_huge_logits(name: str, size: float) -> None:
    objective = OBJECTIVES[name]
    logits = torch.full((4,), size, requires_grad=True)
    real = torch.full((4,), -size, requires_grad=True)
    for loss in (
        objective.loss_D(real, logits),
        objective.loss_G(logits, real if objective.paired else None),
    ):
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.isfinite()
        assert gradient.isfinite().all()


def test_non_saturating_pulls_where_minimax_is_flat() -> None:
    pulls = {}
    for name in ("minimax", "non-saturating"):
        logits = torch.tensor([-20.0], requires_grad=True)
        (gradient,) = torch.autograd.grad(OBJECTIVES[name].loss_G(logits, None), logits)
        pulls[name] = gradient.abs().item()
    assert pulls["non-saturating"] == pytest.approx(1.0)
    assert pulls["minimax"] < 1e-8


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_each_names_its_paper(name: str) -> None:
    assert "arXiv:" in OBJECTIVES[name].paper


GOLDEN = {
    "least-squares": ((0 + 9) / 4 + (0.25 + 9) / 4, (0.25 + 4) / 4),
    "wasserstein": (1.75 + 0.5, -1.75),
    "hinge": ((0 + 3) / 2 + (1.5 + 4) / 2, -1.75),
    "relativistic": (
        -(log_sigmoid(0.5) + log_sigmoid(-5.0)) / 2,
        -(log_sigmoid(-0.5) + log_sigmoid(5.0)) / 2,
    ),
}


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_losses_by_hand(name: str) -> None:
    objective = OBJECTIVES[name]
    loss_G = objective.loss_G(FAKE, REAL if objective.paired else None)
    assert (objective.loss_D(REAL, FAKE).item(), loss_G.item()) == pytest.approx(
        GOLDEN[name], rel=1e-6
    )
