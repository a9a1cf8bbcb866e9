"""Which gamma: how the leading eigenvalues move with a penalty's weight, and where ringing ends.

Eigenvalues are those of the flow P J that small steps follow, P with both learning rates and Adam's
frozen second moments: rates decide what turns and how fast, and J alone knows none. The slope of an
eigenvalue is d lambda / d gamma = w^H P (dJ/d gamma) u / (w^H u). J is linear in the weight, but
where D is unrolled along its whole loss, so that dJ/d gamma is a difference at a small step, and at
half of it, which must agree. Where an eigenvalue turns, its real part moves along that slope while
its size stays, as on the Dirac-GAN with R1 and rates h_G and h_D, lambda = -h_D gamma/2 +-
sqrt(h_D^2 gamma^2/4 - h_G h_D c^2): critical damping is where the real part has come to -|lambda|.
Beyond, one of the two comes back towards 0. What the law predicts is solved again there, and at
half and twice of it. This module knows no run.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from training.errors import StabilityError
from training.stability.rounds.round_operator import RoundOperator
from training.stability.spectrum import Complexes, Floats, Spectrum, spectra

_TURNS = 0.05  # |Im| / |lambda| from which an eigenvalue counts as turning
_RESOLVED = 1e-2  # residual, and relative distance of the left eigenvalue, at most
_STEP, _LEAST = 1e-3, 0.1  # of a weight, for the derivative: relative, of this weight at least
_SETTLED = 1e-2  # the difference of a slope by a step and by half of it, at most
_ROUNDING = 1e-9  # of an eigenvalue
_FACTORS = (0.5, 1.0, 2.0)
MOST = 1e3
"""Times the present weight, or 1 where that is less, that a weight may be advised."""
DAMPED = 0.7
"""Damping ratio from which a mode counts as damped: it overshoots by 5% at most."""

At = Callable[[float], RoundOperator]
"""A weight to a round of the game with it, linearised where it stands."""


@dataclass(frozen=True, kw_only=True)
class Mode:
    """A leading eigenvalue and what moves it."""

    value: complex
    """lambda, a round."""
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
        """The weight at which it stops turning; None where the penalty doesn't damp it.

        Beyond MOST times the present weight the law, which is a local one, says nothing.
        """
        if self.slope.real >= 0:
            return None
        found = weight + (abs(self.value) + self.value.real) / -self.slope.real
        return found if found <= MOST * max(weight, 1.0) else None


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
    """(weight, the turning mode's eigenvalue or the nearest to it, largest real part of the flow);
    empty where the advice is none, or to keep the weight."""

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
        at: a round of the game with another weight of the penalty; two of them are held at once.
        weight: its present one.
        num: leading eigenvalues of each kind.

    Raises:
        StabilityError: a player doesn't move here, or the Jacobian has no derivative by the weight.
    """
    modes = _modes(at, weight, num)
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


def _modes(at: At, weight: float, num: int) -> tuple[Mode, ...]:
    here = at(weight)
    if here.standing:
        raise StabilityError(
            f"{here.standing}, so that no weight damps anything; choose another checkpoint with "
            "--checkpoint"
        )
    pairs = _pairs(here, num)
    if not pairs:
        return ()
    values = np.array([value for value, _, _ in pairs])
    moved = _slopes(at, here, weight, values, pairs)
    rows = here.jacobian.sizes["G"]
    found = []
    for slope, (value, u, w) in zip(moved, pairs, strict=True):
        share = (w.conj()[:rows] @ u[:rows]) / (w.conj() @ u)
        found.append(Mode(value=value, slope=complex(slope), share_G=float(share.real)))
    return tuple(found)


_Pair = tuple[complex, Complexes, Complexes]
"""(lambda, u, w): an eigenvalue on or above the axis, its right and its left eigenvector."""


def _pairs(here: RoundOperator, num: int) -> list[_Pair]:
    """The resolved leading eigenvalues with both their vectors."""
    right, left = _joined(_spectra(here, num)), _joined(_spectra(here, num, back=True))
    found: list[_Pair] = []
    for value, u, residual in zip(right.values, right.vectors.T, right.residuals, strict=True):
        nearest = int(np.abs(left.values - value).argmin())
        apart = abs(left.values[nearest] - value) / max(abs(value), np.finfo(float).tiny)
        if value.imag < 0 or max(residual, left.residuals[nearest], apart) > _RESOLVED:
            continue
        if any(abs(value - other) < _RESOLVED * abs(value) for other, _, _ in found):
            continue
        # (P J)^T x = lambda x, so that w = conj(x) is the left eigenvector: w^H P J = lambda w^H.
        found.append((complex(value), u, left.vectors[:, nearest].conj()))
    return found


def _slopes(
    at: At, here: RoundOperator, weight: float, values: Complexes, pairs: Sequence[_Pair]
) -> Complexes:
    """D lambda / d weight of each pair, by two differences that must agree."""
    right, left = (np.stack([pair[i] for pair in pairs], axis=1) for i in (1, 2))
    step = _STEP * max(weight, _LEAST)

    def by(step: float) -> Complexes:
        heavier = at(weight + step)

        def product(vector: Floats) -> Floats:
            u = torch.from_numpy(np.ascontiguousarray(vector))
            moved = heavier.preconditioned(u) - here.preconditioned(u)
            found: Floats = (moved / step).numpy()
            return found

        return slopes(product, right, left)

    whole, half = by(step), by(step / 2)
    apart = np.abs(whole - half) - _ROUNDING * np.abs(values) / step
    if (apart > _SETTLED * np.abs(half)).any():
        raise StabilityError(
            f"the slopes of the eigenvalues by the weight differ between steps of {step:g} and "
            f"{step / 2:g} from {weight:g} on: the Jacobian has no derivative by this weight here; "
            "`gamma RUN --trials KIMG` asks the images instead"
        )
    # The error of a difference is of the order of its step: of these two, this has none of it.
    extrapolated: Complexes = 2 * half - whole
    return extrapolated


def slopes(
    derivative: Floats | Callable[[Floats], Floats], right: Complexes, left: Complexes
) -> Complexes:
    """Returns d lambda / d gamma of each eigenpair, [k] (Lancaster 1964).

    Args:
        derivative: d (P J) / d gamma, [n, n], or the product with it.
        right: eigenvectors u of P J, [n, k].
        left: eigenvectors w, w^H P J = lambda w^H, [n, k] in the same order.
    """
    product = derivative if callable(derivative) else derivative.__matmul__
    moved = np.stack([product(u.real) + 1j * product(u.imag) for u in right.T], axis=1)
    found: Complexes = (left.conj() * moved).sum(0) / (left.conj() * right).sum(0)
    return found


def _spectra(here: RoundOperator, num: int, *, back: bool = False) -> tuple[Spectrum, ...]:
    """Leading eigenvalues of the flow; back: of its transpose, with the left eigenvectors."""
    product = here.preconditioned_back if back else here.preconditioned
    # In units of the larger rate: a schedule's last rates are below what counts as rounding.
    unit = max(optimizer.lr for optimizer in here.optimizers.values())
    found = spectra(lambda u: product(u) / unit, here.jacobian.size, num=num)
    return tuple(replace(each, values=unit * each.values) for each in found)


def _solve(
    at: At, weight: float, mode: Mode, present: float, num: int
) -> tuple[float, complex, float]:
    largest, rightmost = _spectra(at(weight), num)
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
