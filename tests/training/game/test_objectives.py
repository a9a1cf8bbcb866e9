import math

import pytest
import torch

from training.game.objectives import OBJECTIVES

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


def relu(x: float) -> float:
    return max(x, 0.0)


# REAL less the mean of FAKE, 1.75, and FAKE less the mean of REAL, -0.5.
ABOVE, BELOW = (-0.75, -3.75), (1.0, 3.5)

GOLDEN = {
    "relativistic-average": (
        -sum(log_sigmoid(x) for x in ABOVE) / 2 - sum(log_sigmoid(-x) for x in BELOW) / 2,
        -sum(log_sigmoid(x) for x in BELOW) / 2 - sum(log_sigmoid(-x) for x in ABOVE) / 2,
    ),
    "relativistic-average-hinge": (
        sum(relu(1 - x) for x in ABOVE) / 2 + sum(relu(1 + x) for x in BELOW) / 2,
        sum(relu(1 - x) for x in BELOW) / 2 + sum(relu(1 + x) for x in ABOVE) / 2,
    ),
    "least-squares": ((0 + 9) / 4 + (0.25 + 9) / 4, (0.25 + 4) / 4),
    "wasserstein": (1.75 + 0.5, -1.75),
    "hinge": ((0 + 3) / 2 + (1.5 + 4) / 2, -1.75),
    "relativistic": (
        -(log_sigmoid(0.5) + log_sigmoid(-5.0)) / 2,
        -(log_sigmoid(-0.5) + log_sigmoid(5.0)) / 2,
    ),
}


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_a_batch_is_the_mean_of_its_parts_unless_the_entry_denies_it(name: str) -> None:
    """The flag is what `--accumulate` and several processes go by."""
    objective = OBJECTIVES[name]
    real, fake = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    paired = objective.paired
    for loss in (objective.loss_D, lambda a, b: objective.loss_G(b, a if paired else None)):
        parts = torch.stack([loss(real[i::4], fake[i::4]) for i in range(4)]).mean()
        assert (abs(loss(real, fake) - parts) > 1e-4) == objective.whole_batch


def test_d_is_a_classifier_only_where_one_logit_is_a_probability() -> None:
    classifiers = {name for name, entry in OBJECTIVES.items() if entry.classifier}
    assert classifiers == {"minimax", "non-saturating"}
    logistic = {name for name, entry in OBJECTIVES.items() if entry.logistic}
    assert logistic == classifiers | {"relativistic", "relativistic-average"}


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_losses_by_hand(name: str) -> None:
    objective = OBJECTIVES[name]
    loss_G = objective.loss_G(FAKE, REAL if objective.paired else None)
    assert (objective.loss_D(REAL, FAKE).item(), loss_G.item()) == pytest.approx(
        GOLDEN[name], rel=1e-6
    )
