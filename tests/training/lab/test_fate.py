"""Fate: the prediction is the gauge's, and the stepper follows it near the equilibrium."""

import numpy as np
import pytest

from training.errors import ConfigError
from training.lab.fate import fate

NEAR = {"theta": "0.001", "rounds": "60"}


@pytest.mark.parametrize(
    ("query", "mu"),
    [
        # facts of docs/stability.md's gauge: gamma = 0.3, h = 0.7
        ({"regularizers": "r1=0.3"}, 0.895 + 0.333879j),
        ({"regularizers": "r1=0.3", "update": "alternating"}, 0.83375 + 0.307995j),
        ({"update": "extragradient"}, 0.8775 + 0.35j),
    ],
)
def test_the_path_goes_where_the_spectrum_says(query, mu):
    found = fate({**NEAR, **query, "lr": "0.7"})
    values = [complex(*pair) for pair in found["mu"]]
    assert min(abs(value - mu) for value in values) < 1e-5
    assert np.allclose(found["predicted"], found["played"], atol=2e-6)


def test_a_normal_s_width_converges_by_the_logistic_loss_and_not_by_wasserstein_s():
    ends = {}
    for objective in ("minimax", "wasserstein"):
        found = fate({"game": "lq", "objective": objective, "theta": "0.2", "rounds": "80"})
        ends[objective] = abs(found["played"][-1][0] - 1)
        assert (found["radius"] < 1) == (objective == "minimax")
    assert ends["minimax"] < 0.05 < 0.2 < ends["wasserstein"]


@pytest.mark.parametrize("terms", ["clip=1", "wgan-gp=1"])
def test_what_has_no_derivative_is_played_and_not_predicted(terms):
    found = fate({"regularizers": terms, "rounds": "9"})
    assert len(found["played"]) == 10
    assert "predicted" not in found
    assert "no" in found["unpredicted"]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"game": "chess"}, "allowed: dirac, lq"),
        ({"rounds": "100000"}, "allowed: 8 .. 400"),
        ({"lr": "x"}, "allowed: a number"),
        ({"objective": "x"}, "allowed: minimax"),
        ({"update": "x"}, "allowed: alternating"),
        ({"depth": "3"}, "allowed: game"),
    ],
)
def test_options_that_are_none_are_refused(query, says):
    with pytest.raises(ConfigError, match="allowed") as refused:
        fate(query)
    assert says in str(refused.value)
