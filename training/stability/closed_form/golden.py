"""The golden table: every game of the gauge, and what moves its eigenvalues.

Critical weights are where a game stops turning; sensitivities are by a penalty's weight and by both
players' rates.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from training.stability.closed_form.gauge import (
    DEFECTIVE,
    GAMMA,
    STEP,
    C,
    Check,
    eigenvalues,
    flows_and_rounds,
    jacobian,
    limit_of,
    operator,
    pair,
    round_eigenvalues,
    step_limit,
)
from training.stability.closed_form.toy_games import ToyGame, dirac, gaussian_mean
from training.stability.closed_form.zoo import extrapolation_polynomial
from training.stability.damping import Mode, damping, slopes
from training.stability.rounds.frozen_optimizers import plain
from training.stability.rounds.round_operator import RoundOperator


def checks() -> Iterator[Check]:
    """Measures every game but those of `training.stability.closed_form.zoo`."""
    yield from flows_and_rounds()
    yield from _extrapolated()
    yield from _critical()


def _extrapolated() -> Iterator[Check]:
    """Alex-GDA with other shares than the zoo's, and its largest step (Lee et al. 2024)."""
    for name, terms, gamma in (("", (), 0.0), (", R1", (f"r1={GAMMA}",), GAMMA)):
        J = (0.0, C, -C, -gamma)
        for share in (1.5, 2.0):
            options: dict[str, Any] = {"update": "alternating-extrapolation"}
            played = operator(dirac(*terms), extrapolation=share, **options)
            roots = extrapolation_polynomial(J, STEP, share - 1).roots
            yield Check(
                game=f"Dirac{name}, Alex-GDA of {share:g}",
                quantity="mu",
                measured=round_eigenvalues(played),
                expected=(*map(complex, roots), 0.0),
            )
        yield Check(
            game=f"Dirac{name}, Alex-GDA of 2",
            quantity="largest step",
            measured=(step_limit(dirac(*terms), plain(1.0), "alternating-extrapolation"),),
            expected=(limit_of(partial(extrapolation_polynomial, J, e=1.0)),),
        )


def _critical() -> Iterator[Check]:
    """Where the oscillation ends, and how the eigenvalue moves with gamma."""
    yield Check(
        game="Dirac, R1, gamma = 1",
        quantity="lambda, critical",
        measured=eigenvalues(jacobian(dirac("r1=1"))),
        expected=(-C, -C),
        tolerance=DEFECTIVE,
    )
    yield Check(
        game="mean of a normal, S = 2",
        quantity="lambda, critical",
        measured=eigenvalues(jacobian(gaussian_mean((0.0, 0.0), math.sqrt(2)))),
        expected=(-C, -C),
        tolerance=DEFECTIVE,
    )

    for name, game, critical in _dampings():
        yield Check(
            game=f"Dirac, {name}",
            quantity="critical weight",
            measured=(_critical_weight(game),),
            expected=(critical,),
        )
    for rate in (0.25, 4.0):
        advice = damping(partial(_at_rate, rate), 0.2).advice
        yield Check(
            game=f"Dirac, R1, rate of D {rate:g} times G's",
            quantity="critical gamma",
            measured=(math.nan if advice is None else advice,),
            expected=(2 * C / math.sqrt(rate),),
        )
    slope = GAMMA / 4 / math.sqrt(C**2 - GAMMA**2 / 4)
    yield Check(
        game="Dirac, R1",
        quantity="d lambda / d gamma",
        measured=sensitivities(dirac(f"r1={GAMMA}"), dirac(f"r1={GAMMA + 1}")),
        expected=(complex(-0.5, -slope), complex(-0.5, slope)),
    )
    # lambda^2 + h_D gamma lambda + h_G h_D c^2 = 0, derived by h_G and by h_D at 1.
    lambdas = pair(-GAMMA / 2, C**2)
    for player, moved in (("G", [-(C**2)] * 2), ("D", [-GAMMA * each - C**2 for each in lambdas])):
        yield Check(
            game="Dirac, R1",
            quantity=f"d lambda / d ln rate of {player}",
            measured=rate_sensitivities(dirac(f"r1={GAMMA}"), player),
            expected=tuple(
                each / (2 * value + GAMMA) for each, value in zip(moved, lambdas, strict=True)
            ),
        )


def _at_rate(rate: float, gamma: float) -> RoundOperator:
    """A round on the Dirac-GAN with R1, D's rate so many times G's."""
    players = {"G": plain(1.0), "D": plain(rate)}
    return replace(operator(dirac(f"r1={gamma}")), optimizers=players)


def _dampings() -> Iterator[tuple[str, Callable[[float], ToyGame], float]]:
    """Penalties with the weight from which on nothing turns: damping d of one player = 2 sqrt(bc).

    R1 has d = gamma, zero-gp and feature matching 2 gamma.
    """
    yield "R1", lambda weight: dirac(f"r1={weight}"), 2 * C
    yield "R2", lambda weight: dirac(f"r2={weight}"), 2 * C
    yield "zero-gp", lambda weight: dirac(f"zero-gp={weight}"), C
    yield "feature matching", lambda weight: dirac(f"feature-matching={weight}"), C
    yield "wasserstein, R1", lambda w: dirac(f"r1={w}", objective="wasserstein"), 2.0


def _critical_weight(game: Callable[[float], ToyGame]) -> float:
    """By the law of `training.stability.damping`, from the eigenvalue and its slope at gamma."""
    value = max(eigenvalues(jacobian(game(GAMMA))), key=lambda each: each.imag)
    slope = sensitivities(game(GAMMA), game(GAMMA + 1))[0]
    found = Mode(value=value, slope=slope, share_G=math.nan).critical(GAMMA)
    return math.nan if found is None else found


def sensitivities(game: ToyGame, heavier: ToyGame) -> tuple[complex, ...]:
    """Returns d lambda / d gamma of each eigenvalue; heavier: the game with gamma + 1."""
    here, there = jacobian(game), jacobian(heavier)
    return _slopes(here, there - here)


def rate_sensitivities(game: ToyGame, player: str) -> tuple[complex, ...]:
    """Returns d lambda / d ln(rate) of each eigenvalue, for the rate of one player."""
    rows = jacobian(game, (1.0, 0.0) if player == "G" else (0.0, 1.0))
    return _slopes(jacobian(game), rows)


def _slopes(matrix: np.ndarray, derivative: np.ndarray) -> tuple[complex, ...]:
    """Of each eigenvalue, that with the largest imaginary part first."""
    values, right = np.linalg.eig(matrix)
    moved = slopes(derivative, right, np.linalg.inv(right).conj().T)
    return tuple(complex(value) for value in moved[np.argsort(-values.imag)])
