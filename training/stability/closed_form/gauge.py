"""The gauge: what the instrument measures of toy games, beside what is known in closed form.

Every measurement goes the way that a real game's goes: the losses that train, their Jacobian by
products, the operator of a round, the bisection of the step. gamma = 0.3 and h = 0.7 where no other
value is named.
"""

import cmath
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from training.stability.closed_form.toy_games import (
    ToyGame,
    dirac,
    gaussian_mean,
    linear_quadratic,
    not_nash,
)
from training.stability.damping import damping, slopes
from training.stability.equilibrium import equilibrium
from training.stability.rounds.frozen_optimizers import FrozenOptimizer, plain
from training.stability.rounds.round_operator import DenseJacobian, RoundOperator
from training.stability.rounds.step_limit import largest_stable_factor
from training.stability.spectrum import matrix_of

C = 0.5  # f'(0)
GAMMA = 0.3
STEP = 0.7
EXACT, DEFECTIVE = 1e-6, 1e-4
"""Tolerances: at a defective point eigenvalues move with the root of an error."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """A quantity of a game: measured, and in closed form."""

    game: str
    quantity: str
    measured: tuple[complex, ...]
    expected: tuple[complex, ...]
    tolerance: float = EXACT

    @property
    def difference(self) -> float:
        """The largest distance of a measured value from the nearest expected one, and back."""
        apart = np.abs(np.subtract.outer(np.array(self.measured), np.array(self.expected)))
        return float(max(apart.min(0).max(), apart.min(1).max()))

    @property
    def passes(self) -> bool:
        """True where they agree to the tolerance."""
        return self.difference <= self.tolerance


def checks() -> Iterator[Check]:
    """Measures every game of the gauge."""
    yield from _flows()
    yield from _rounds()
    yield from _limits()
    yield from _critical()
    yield from _equilibria()


def jacobian(game: ToyGame, rates: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """The Jacobian of the field with G's and D's rows multiplied by the rates, [n, n]."""
    field = game.field()
    matrix = matrix_of(field.at().jvp, field.size)
    num_G = field.sizes["G"]
    scale = np.repeat(rates, [num_G, field.size - num_G])
    scaled: np.ndarray = scale[:, None] * matrix
    return scaled


def eigenvalues(matrix: np.ndarray) -> tuple[complex, ...]:
    """All eigenvalues of a matrix."""
    return tuple(complex(value) for value in np.linalg.eigvals(matrix))


def operator(
    game: ToyGame, optimizer: FrozenOptimizer | None = None, **options: Any
) -> RoundOperator:
    """A round of the game in which both players move alike, by steps of size h if not told."""
    player, field = optimizer or plain(STEP), game.field()
    # As a matrix: the search for a limit plays hundreds of rounds.
    matrix = torch.from_numpy(matrix_of(field.at().jvp, field.size))
    return RoundOperator(
        jacobian=DenseJacobian(matrix, field.sizes),
        optimizers={"G": player, "D": player},
        **options,
    )


def round_eigenvalues(played: RoundOperator) -> tuple[complex, ...]:
    """All eigenvalues of a round's operator."""
    return eigenvalues(matrix_of(played.apply, played.size))


def step_limit(game: ToyGame, optimizer: FrozenOptimizer, update: str) -> float:
    """The largest stable rate of both players; optimizer: with a rate of 1."""
    played = operator(game, optimizer, update=update)

    def radius(factor: float) -> float:
        return float(np.abs(round_eigenvalues(played.scaled(factor))).max())

    factor = largest_stable_factor(radius)
    return math.nan if factor is None else factor


def pair(half_trace: complex, determinant: complex) -> tuple[complex, ...]:
    """The eigenvalues of a 2x2 matrix."""
    root = cmath.sqrt(half_trace**2 - determinant)
    return half_trace + root, half_trace - root


def _flows() -> Iterator[Check]:
    """Eigenvalues of the differential equation."""
    g, s = GAMMA, 0.8
    noisy = -0.25 * s**2
    table: list[tuple[str, ToyGame, tuple[complex, ...]]] = [
        *(
            (f"Dirac, {name}", dirac(objective=name), pair(0, C**2))
            for name in ("minimax", "non-saturating", "relativistic")
        ),
        ("Dirac, wasserstein", dirac(objective="wasserstein"), pair(0, 1)),
        ("Dirac, R1", dirac(f"r1={g}"), pair(-g / 2, C**2)),
        ("Dirac, R2", dirac(f"r2={g}"), pair(-g / 2, C**2)),
        ("Dirac, R1 + R2", dirac(f"r1={g}", f"r2={g}"), pair(-g, C**2)),
        ("Dirac, instance noise 0.8", dirac(noise=s), pair(noisy, C**2)),
        (
            "Dirac, consensus",
            dirac(f"consensus={g}"),
            (complex(-g * C**2, C), complex(-g * C**2, -C)),
        ),
        ("LQ, wasserstein", linear_quadratic(objective="wasserstein"), pair(0, 4)),
        (
            "LQ, wasserstein, R1",
            linear_quadratic(f"r1={g}", objective="wasserstein"),
            pair(-2 * g, 4),
        ),
        ("LQ, minimax", linear_quadratic(objective="minimax"), pair(-0.75, 1)),
        (
            "LQ, minimax, R1",
            linear_quadratic(f"r1={g}", objective="minimax"),
            pair(-0.75 - 2 * g, 1),
        ),
    ]
    for name, game, expected in table:
        yield _flow(name, game, expected)
    for mean, spread in (((0.0, 0.0), 0.2), ((0.0, 0.0), 1.0), ((3.0, 0.0), 1.0)):
        across, along = spread**2, spread**2 + math.hypot(*mean) ** 2
        values = pair(-across / 4, C**2) + pair(-along / 4, C**2)
        label = f"mean of a normal, S = {along:g} along, {across:g} across"
        yield _flow(label, gaussian_mean(mean, spread), values)
    yield _flow("mean of a normal, S = 4", gaussian_mean((0.0, 0.0), 2.0), pair(-1, C**2))
    for ratio in (0.4, 1.0):
        yield Check(
            game=f"stable, not Nash, tau = {ratio:g}",
            quantity="lambda",
            measured=eigenvalues(jacobian(not_nash(), (1.0, ratio))),
            expected=pair((0.5 - ratio) / 2, ratio / 2),
        )
    yield Check(
        game="Dirac, R1, D twice as fast",
        quantity="lambda",
        measured=eigenvalues(jacobian(dirac(f"r1={g}"), (1.0, 2.0))),
        expected=pair(-g, 2 * C**2),
    )
    yield Check(
        game="Dirac, D twice as fast",
        quantity="lambda",
        measured=eigenvalues(jacobian(dirac(), (1.0, 2.0))),
        expected=pair(0, 2 * C**2),
    )


def _flow(name: str, game: ToyGame, expected: tuple[complex, ...]) -> Check:
    measured = eigenvalues(jacobian(game))
    return Check(game=name, quantity="lambda", measured=measured, expected=expected)


def _rounds() -> Iterator[Check]:
    """Eigenvalues of a round, and its exponent ln |mu|."""
    h, g, c = STEP, GAMMA, C
    simultaneous: dict[str, Any] = {"update": "simultaneous"}
    b = 1 - (h * g + h**2 * c**2) / 2
    lam = 1j * c
    turn, trial = pair((1 + 2 * h * lam) / 2, h * lam), 1 + h * lam + (h * lam) ** 2
    optimistic = plain(h, optimistic=True)
    table: list[tuple[str, RoundOperator, Sequence[complex]]] = [
        ("simultaneous", operator(dirac(), **simultaneous), pair(1, 1 + h**2 * c**2)),
        (
            "simultaneous, R1",
            operator(dirac(f"r1={g}"), **simultaneous),
            pair(1 - h * g / 2, 1 - h * g + h**2 * c**2),
        ),
        ("alternating", operator(dirac()), pair(1 - (h * c) ** 2 / 2, 1)),
        (
            "alternating, 5 steps of D",
            operator(dirac(), steps_D=5),
            pair(1 - 5 * (h * c) ** 2 / 2, 1),
        ),
        ("alternating, R1", operator(dirac(f"r1={g}")), pair(b, 1 - h * g)),
        ("extragradient", operator(dirac(), update="extragradient"), (trial, trial.conjugate())),
        (
            "optimistic",
            operator(dirac(), optimistic, **simultaneous),
            (*turn, *(value.conjugate() for value in turn)),
        ),
        (
            "lookahead, 5 rounds",
            operator(dirac(), lookahead_steps=5, **simultaneous),
            [0.5 + 0.5 * (1 + sign * h * lam) ** 5 for sign in (1, -1)],
        ),
    ]
    for name, played, expected in table:
        measured = round_eigenvalues(played)
        yield Check(
            game=f"Dirac, {name}", quantity="mu", measured=measured, expected=tuple(expected)
        )
    for b1, b2 in ((0.0, 0.0), (-0.5, 0.0), (-0.3, -0.3), (0.5, 0.0), (0.5, 0.5)):
        yield _heavy_ball(b1, b2, 0.35)
    yield _heavy_ball(-0.5, 0.0, 1.0)


def _heavy_ball(b1: float, b2: float, c: float) -> Check:
    """(mu - 1)^2 (mu - b1)(mu - b2) + c^2 mu^3 = 0, alternating (Gidel et al. 2019, 1807.04740)."""
    polynomial = np.poly1d([1, -1]) ** 2 * np.poly1d([1, -b1]) * np.poly1d([1, -b2])
    polynomial = polynomial + np.poly1d([c**2, 0, 0, 0])
    field = dirac(objective="wasserstein").field().at()
    players = {"G": plain(c, b1), "D": plain(c, b2)}
    played = RoundOperator(jacobian=field, optimizers=players)
    return Check(
        game=f"bilinear, momentum {b1:g} and {b2:g}, c = {c:g}",
        quantity="radius",
        measured=(max(map(abs, round_eigenvalues(played))),),
        expected=(max(map(abs, polynomial.roots)),),
    )


def _limits() -> Iterator[Check]:
    """The largest stable step: by bisection of the operator, and of its known polynomial."""
    game, lam = dirac(f"r1={GAMMA}"), pair(-GAMMA / 2, C**2)[0]
    for momentum in (-0.5, 0.0, 0.5, 0.9):
        for update in ("simultaneous", "alternating"):
            yield Check(
                game=f"Dirac, R1, {update}, frozen Adam of momentum {momentum:g}",
                quantity="largest step",
                measured=(step_limit(game, plain(1.0, momentum, damped=True), update),),
                expected=(_limit(partial(_adam_polynomial, momentum, update)),),
            )
    ahead = plain(1.0, optimistic=True)
    for name, optimizer, update, polynomial in (
        (
            "extragradient",
            plain(1.0),
            "extragradient",
            lambda h: [1, -1 - h * lam - (h * lam) ** 2],
        ),
        ("optimistic", ahead, "simultaneous", lambda h: [1, -(1 + 2 * h * lam), h * lam]),
    ):
        yield Check(
            game=f"Dirac, R1, {name}",
            quantity="largest step",
            measured=(step_limit(game, optimizer, update),),
            expected=(_limit(polynomial),),
        )
    for name, optimizer, update, value in (
        ("extragradient", plain(1.0), "extragradient", 1 / C),
        ("optimistic", ahead, "simultaneous", 1 / (C * math.sqrt(3))),
        ("alternating", plain(1.0), "alternating", 2 / C),
    ):
        yield Check(
            game=f"Dirac, {name}",
            quantity="largest step",
            measured=(step_limit(dirac(), optimizer, update),),
            expected=(value,),
        )


def _adam_polynomial(b: float, update: str, h: float) -> np.poly1d:
    """The polynomial p (p + q gamma) + q^2 c^2 [mu if alternating] of mu.

    p = (mu - 1)(mu - b), q = (1 - b) h mu.
    """
    p, q = np.poly1d([1, -1]) * np.poly1d([1, -b]), np.poly1d([(1 - b) * h, 0])
    seen = np.poly1d([1, 0]) if update == "alternating" else np.poly1d([1])
    found: np.poly1d = p * (p + q * GAMMA) + q * q * C**2 * seen
    return found


def _limit(polynomial: Callable[[float], Any]) -> float:
    """The first step at which a root of the polynomial leaves the unit disc."""
    factor = largest_stable_factor(lambda h: float(np.abs(np.roots(polynomial(h))).max()))
    return math.nan if factor is None else factor


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

    for rate in (0.25, 4.0):
        one, quick = plain(1.0), plain(rate)

        def at(gamma: float, players: dict[str, FrozenOptimizer]) -> RoundOperator:
            return replace(operator(dirac(f"r1={gamma}")), optimizers=players)

        found = damping(partial(at, players={"G": one, "D": quick}), 0.2)
        yield Check(
            game=f"Dirac, R1, rate of D {rate:g} times G's",
            quantity="critical gamma",
            measured=(math.nan if found.advice is None else found.advice,),
            expected=(2 * C / math.sqrt(rate),),
        )
    slope = GAMMA / 4 / math.sqrt(C**2 - GAMMA**2 / 4)
    yield Check(
        game="Dirac, R1",
        quantity="d lambda / d gamma",
        measured=sensitivities(dirac(f"r1={GAMMA}"), dirac(f"r1={GAMMA + 1}")),
        expected=(complex(-0.5, -slope), complex(-0.5, slope)),
    )


def sensitivities(game: ToyGame, heavier: ToyGame) -> tuple[complex, ...]:
    """Returns d lambda / d gamma of each eigenvalue; heavier: the game with gamma + 1."""
    from_to = [matrix_of(each.field().at().jvp, 2) for each in (game, heavier)]
    values, right = np.linalg.eig(from_to[0])
    moved = slopes(from_to[1] - from_to[0], right, np.linalg.inv(right).conj().T)
    return tuple(complex(value) for value in moved[np.argsort(-values.imag)])


def _equilibria() -> Iterator[Check]:
    """Each player's own Hessian, the Schur complement, and the ratio of rates that stabilises."""
    found = equilibrium(not_nash().field().at())
    for quantity, measured, expected in (
        ("G's block", found.block_G[0], -0.5),
        ("Schur complement", found.schur_G[0] if found.schur_G else None, 0.5),
        ("tau*", found.tau, 0.5),
    ):
        yield Check(
            game="stable, not Nash",
            quantity=quantity,
            measured=(math.nan if measured is None else measured,),
            expected=(expected,),
        )
