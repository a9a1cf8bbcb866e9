"""Which gamma: how the leading eigenvalues move with a penalty's weight, and where ringing ends.

The Jacobian is linear in each weight, J = J_0 + gamma J_p, so that the slope of an eigenvalue is
exact: d lambda / d gamma = w^H J_p u / (w^H u). Where an eigenvalue turns, its real part moves
along that slope while its size stays, as on the Dirac-GAN with R1, lambda = -gamma/2 +-
sqrt(gamma^2/4 - c^2): critical damping is where the real part has come to -|lambda|. Beyond, one of
the two comes back towards 0. What the law predicts is solved again there, and at half and twice of
it. This module knows no run.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from training.stability.field import Linearization
from training.stability.sensitivity import slopes
from training.stability.spectrum import Complexes, Floats, Spectrum, spectra

_TURNS = 0.05  # |Im| / |lambda| from which an eigenvalue counts as turning
_RESOLVED = 1e-2  # residual, and relative distance of the left eigenvalue, at most
_FACTORS = (0.5, 1.0, 2.0)
DAMPED = 0.7
"""Damping ratio from which a mode counts as damped: it overshoots by 5% at most."""

At = Callable[[float], Linearization]
"""A weight to the game with it, linearised where it stands."""


@dataclass(frozen=True, kw_only=True)
class Mode:
    """A leading eigenvalue and what moves it."""

    value: complex
    """lambda."""
    slope: complex
    """d lambda / d weight."""
    share_G: float
    """Of the mode that is G's: d lambda / d ln(rate of G) = share_G lambda; D's share is the
    rest."""

    @property
    def turns(self) -> bool:
        """True where it oscillates."""
        return abs(self.value.imag) > _TURNS * abs(self.value)

    @property
    def damping_ratio(self) -> float:
        """-Re / |lambda|: 0 circles for ever, 1 is critical."""
        return -self.value.real / abs(self.value)

    def critical(self, weight: float) -> float | None:
        """The weight at which it stops turning; None where the penalty doesn't damp it."""
        if self.slope.real >= 0:
            return None
        return weight + (abs(self.value) + self.value.real) / -self.slope.real


@dataclass(frozen=True, kw_only=True)
class Damping:
    """Modes at the present weight, the advice, and what was solved around it."""

    weight: float
    """The present weight."""
    modes: tuple[Mode, ...]
    """Resolved leading modes, those above the axis."""
    advice: float | None
    """The weight that damps the slowest turning mode critically, or the present one where that mode
    is damped already (DAMPED); None where none turns, or where the penalty damps none that does."""
    solved: tuple[tuple[float, complex, float], ...]
    """(weight, the turning mode's eigenvalue or the nearest to it, largest real part of J); empty
    where the advice is none, or to keep the weight."""

    @property
    def keeps(self) -> bool:
        """True where the advice is the present weight."""
        return self.advice == self.weight

    def ratio_at(self, weight: float) -> float | None:
        """Damping ratio of the least damped turning mode at a weight, by the law; None without one.

        It is cut to -1 .. 1, and true near the present weight.
        """
        ratios = (
            -(mode.value.real + mode.slope.real * (weight - self.weight)) / abs(mode.value)
            for mode in self.modes
            if mode.turns
        )
        return min((max(-1.0, min(ratio, 1.0)) for ratio in ratios), default=None)


def damping(at: At, weight: float, *, num: int = 6) -> Damping:
    """Measures how a penalty damps a game.

    Args:
        at: the game with another weight of the penalty.
        weight: its present one.
        num: leading eigenvalues of each kind.
    """
    here = at(weight)
    # The Jacobian is linear in the weight: any other weight gives the derivative, without error.
    step = max(weight, 1.0)
    heavier = at(weight + step)
    modes = _modes(here, heavier, step, num)
    turning = [mode for mode in modes if mode.turns and mode.critical(weight) is not None]
    if not turning:
        return Damping(weight=weight, modes=modes, advice=None, solved=())
    # The least damped one rings longest.
    slowest = min(turning, key=lambda mode: mode.damping_ratio)
    if slowest.damping_ratio >= DAMPED:
        return Damping(weight=weight, modes=modes, advice=weight, solved=())
    advice = slowest.critical(weight)
    assert advice is not None
    solved = tuple(_solve(at, factor * advice, slowest, weight, num) for factor in _FACTORS)
    return Damping(weight=weight, modes=modes, advice=advice, solved=solved)


def _modes(here: Linearization, heavier: Linearization, step: float, num: int) -> tuple[Mode, ...]:
    right = _joined(spectra(here.jvp, here.size, num=num))
    left = _joined(spectra(here.vjp, here.size, num=num))
    found: list[Mode] = []
    for value, u, residual in zip(right.values, right.vectors.T, right.residuals, strict=True):
        nearest = int(np.abs(left.values - value).argmin())
        apart = abs(left.values[nearest] - value) / max(abs(value), 1e-12)
        if value.imag < 0 or max(residual, left.residuals[nearest], apart) > _RESOLVED:
            continue
        if any(abs(value - mode.value) < _RESOLVED * abs(value) for mode in found):
            continue
        # J^T x = lambda x, so that w = conj(x) is the left eigenvector: w^H J = lambda w^H.
        w = left.vectors[:, nearest].conj()
        (slope,) = slopes(_derivative(here, heavier, step), u[:, None], w[:, None])
        rows = here.rows("G")
        share = (w.conj()[rows] @ u[rows]) / (w.conj() @ u)
        found.append(Mode(value=complex(value), slope=complex(slope), share_G=float(share.real)))
    return tuple(found)


def _derivative(
    here: Linearization, heavier: Linearization, step: float
) -> Callable[[Floats], Floats]:
    def product(vector: Floats) -> Floats:
        u = torch.from_numpy(np.ascontiguousarray(vector))
        found: Floats = ((heavier.jvp(u) - here.jvp(u)) / step).numpy()
        return found

    return product


def _solve(
    at: At, weight: float, mode: Mode, present: float, num: int
) -> tuple[float, complex, float]:
    there = at(weight)
    largest, rightmost = spectra(there.jvp, there.size, num=num)
    values = np.concatenate([largest.values, rightmost.values])
    # Where the law expects the mode, if the penalty moves it as it does here.
    real = mode.value.real + mode.slope.real * (weight - present)
    expected = real + 1j * np.sqrt(max(abs(mode.value) ** 2 - real**2, 0.0))
    return weight, complex(values[np.abs(values - expected).argmin()]), rightmost.abscissa


def _joined(found: tuple[Spectrum, ...]) -> Spectrum:
    """Both kinds as one list."""
    values: Complexes = np.concatenate([each.values for each in found])
    return Spectrum(
        values=values,
        vectors=np.concatenate([each.vectors for each in found], axis=1),
        residuals=np.concatenate([each.residuals for each in found]),
        num_products=sum(each.num_products for each in found),
        is_whole=found[0].is_whole,
    )
