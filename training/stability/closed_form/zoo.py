"""The Dirac-GAN under every objective, every penalty and every update of the registries.

Near the equilibrium an objective is two numbers: v = (b psi, c theta). A penalty adds to the
Jacobian [[a, b], [c, d]], and an update makes a round of it. So each combination has a closed form,
which is measured by the losses and the updates that train. What has none says why. A new entry of a
registry needs one here: a test compares.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from training.game.objectives import OBJECTIVES
from training.game.penalties import PENALTIES
from training.game.updates import UPDATES
from training.stability.closed_form.gauge import (
    DEFECTIVE,
    EXACT,
    GAMMA,
    STEP,
    Check,
    eigenvalues,
    exponent,
    jacobian,
    pair,
)
from training.stability.closed_form.toy_games import dirac
from training.stability.rounds.frozen_optimizers import plain
from training.stability.rounds.round_operator import DenseJacobian, RoundOperator
from training.stability.spectrum import matrix_of

Entries = tuple[float, float, float, float]
"""(a, b, c, d) of the Jacobian [[a, b], [c, d]] of (theta, psi)."""

COUPLINGS: dict[str, tuple[float, float]] = {
    "minimax": (0.5, -0.5),
    "non-saturating": (0.5, -0.5),
    # D's target for what is generated is 0, which psi theta is to second order: D doesn't answer.
    "least-squares": (1.0, 0.0),
    "wasserstein": (1.0, -1.0),
    "hinge": (1.0, -1.0),
    "relativistic": (0.5, -0.5),
    # Both sides' terms pull, each at the mean of the other: twice the pairs', and twice the hinge.
    "relativistic-average": (1.0, -1.0),
    "relativistic-average-hinge": (2.0, -2.0),
}
"""(b, c) of each objective: psi moves theta by b psi, theta moves psi by c theta."""

NONE = "none"
_WEIGHT = GAMMA
DAMPINGS: dict[str, Callable[[float, float], tuple[float, float]]] = {
    NONE: lambda b, c: (0.0, 0.0),
    "r1": lambda b, c: (0.0, -_WEIGHT),
    "r2": lambda b, c: (0.0, -_WEIGHT),
    "zero-gp": lambda b, c: (0.0, -2 * _WEIGHT),  # psi^2, without R1's half
    # |v|^2 / 2 = (b^2 psi^2 + c^2 theta^2) / 2, added to both losses.
    "consensus": lambda b, c: (-_WEIGHT * c**2, -_WEIGHT * b**2),
    "feature-matching": lambda b, c: (-2 * _WEIGHT, 0.0),  # theta^2: D's feature is x
    # D(0) = 0 whatever psi is: these do nothing.
    "label-smoothing": lambda b, c: (0.0, 0.0),
    "drift": lambda b, c: (0.0, 0.0),
}
"""(a, d) of each penalty with weight gamma, beside an objective's (b, c)."""

_ENCODER = "no analogue: it needs an encoder"
_KINK = "no Jacobian: (|psi| - 1)^2 has a kink at the equilibrium, psi = 0"
_ONE_NUMBER = "no analogue: a player of one number has no rows to be orthogonal"
WITHOUT: dict[str, str] = {
    "wgan-gp": _KINK,
    "dragan": _KINK,
    "orthogonal": _ONE_NUMBER,
    "orthogonal-G": _ONE_NUMBER,
    "path-length": "no analogue: it needs a mapping network",
    "prior": _ENCODER,
    "pixel-reconstruction": _ENCODER,
    "reconstruction": _ENCODER,
    "clip": "no Jacobian at its bounds, which a projection has a kink at; inside it does nothing",
    "spectral": "no Jacobian: psi / |psi| jumps at the equilibrium, psi = 0",
}
"""Why a regulariser has no row."""

Roots = Callable[[Entries, float], tuple[complex, ...]]


def _simultaneous(J: Entries, h: float) -> tuple[complex, ...]:
    """1 + h lambda."""
    return tuple(1 + h * each for each in flow(J))


def _alternating(J: Entries, h: float) -> tuple[complex, ...]:
    """D first: psi' = psi + h (c theta + d psi), then theta' = theta + h (a theta + b psi')."""
    a, b, c, d = J
    return pair(1 + h * (a + d + h * b * c) / 2, (1 + h * a) * (1 + h * d))


def _extragradient(J: Entries, h: float) -> tuple[complex, ...]:
    """1 + h lambda + h^2 lambda^2."""
    return tuple(1 + h * each + (h * each) ** 2 for each in flow(J))


def _extrapolated(J: Entries, h: float) -> tuple[complex, ...]:
    """Roots of mu (mu - 1 - h a)(mu - 1 - h d) = h^2 b c (mu + e (mu - 1))^2, and 0; e = 1.

    D sees theta a share e of its last move ahead, theta (1 + e (mu - 1) / mu), and G the new psi as
    far ahead of it, psi (mu + e (mu - 1)). The 0 is D's last move, which nobody asks for again.
    """
    return (*map(complex, extrapolation_polynomial(J, h, 1.0).roots), 0.0)


def extrapolation_polynomial(J: Entries, h: float, e: float) -> np.poly1d:
    """Of mu: mu (mu - 1 - h a)(mu - 1 - h d) - h^2 b c (mu + e (mu - 1))^2."""
    a, b, c, d = J
    own = np.poly1d([1, 0]) * np.poly1d([1, -1 - h * a]) * np.poly1d([1, -1 - h * d])
    found: np.poly1d = own - h**2 * b * c * np.poly1d([1 + e, -e]) ** 2
    return found


ROUNDS: dict[str, Roots] = {
    "alternating": _alternating,
    "simultaneous": _simultaneous,
    "extragradient": _extragradient,
    "alternating-extrapolation": _extrapolated,
}
"""The eigenvalues of a round by each update, both players by steps of size h."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A game of the zoo with its measurements, or with why there are none."""

    objective: str
    """Entry of OBJECTIVES."""
    regularizer: str
    """Entry of REGULARIZERS, or NONE."""
    why_not: str = ""
    """Why there is nothing to measure; empty where there is."""
    flow: Check | None = None
    """Eigenvalues of the Jacobian."""
    rounds: tuple[Check, ...] = ()
    """Eigenvalues of a round, for each update."""
    exponents: tuple[Check, ...] = ()
    """Lyapunov exponents a round, for each update."""

    @property
    def checks(self) -> tuple[Check, ...]:
        """All measurements."""
        return (*([self.flow] if self.flow else []), *self.rounds, *self.exponents)


def zoo() -> Iterator[Row]:
    """Measures every combination."""
    for objective in OBJECTIVES:
        for penalty in (NONE, *PENALTIES):
            yield row(objective, penalty)


def row(objective: str, penalty: str) -> Row:
    """Measures one objective beside one penalty, or none, under every update."""
    if penalty in WITHOUT:
        return Row(objective=objective, regularizer=penalty, why_not=WITHOUT[penalty])
    if penalty != NONE and PENALTIES[penalty].classifier and not OBJECTIVES[objective].classifier:
        why = "no analogue: D is no classifier, and training refuses it"
        return Row(objective=objective, regularizer=penalty, why_not=why)
    J, (terms, name) = entries(objective, penalty), _named(objective, penalty)
    matrix = jacobian(dirac(*terms, objective=objective))
    found = [_round(matrix, J, name, update) for update in UPDATES]
    return Row(
        objective=objective,
        regularizer=penalty,
        flow=Check(
            game=name,
            quantity="lambda",
            measured=eigenvalues(matrix),
            expected=flow(J),
            tolerance=_tolerance(flow(J)),
        ),
        rounds=tuple(each for each, _ in found),
        exponents=tuple(each for _, each in found),
    )


def entries(objective: str, penalty: str) -> Entries:
    """The Jacobian in closed form."""
    b, c = COUPLINGS[objective]
    a, d = DAMPINGS[penalty](b, c)
    return a, b, c, d


def flow(J: Entries) -> tuple[complex, ...]:
    """The eigenvalues of the Jacobian."""
    a, b, c, d = J
    return pair((a + d) / 2, a * d - b * c)


def _named(objective: str, penalty: str) -> tuple[tuple[str, ...], str]:
    terms = () if penalty == NONE else (f"{penalty}={_WEIGHT:g}",)
    return terms, ", ".join(["Dirac", objective, *terms])


def _round(matrix: np.ndarray, J: Entries, name: str, update: str) -> tuple[Check, Check]:
    expected = ROUNDS[update](J, STEP)
    dense = DenseJacobian(torch.from_numpy(matrix), {"G": 1, "D": 1})
    player = plain(STEP)
    played = RoundOperator(jacobian=dense, optimizers={"G": player, "D": player}, update=update)
    found = matrix_of(played.apply, played.size)
    moved = Check(
        game=f"{name}, {update}",
        quantity="mu",
        measured=eigenvalues(found),
        expected=expected,
        tolerance=_tolerance(expected),
    )
    grown = Check(
        game=f"{name}, {update}",
        quantity="exponent",
        measured=(exponent(found),),
        expected=(math.log(max(map(abs, expected))),),
        tolerance=_tolerance(expected),
    )
    return moved, grown


def _tolerance(values: tuple[complex, ...]) -> float:
    """DEFECTIVE where two eigenvalues meet: there they move with the root of an error."""
    apart = [abs(u - w) for i, u in enumerate(values) for w in values[:i]]
    return EXACT if min(apart) > DEFECTIVE else DEFECTIVE
