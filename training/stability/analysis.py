"""The spectrum of a run's game: what it does next, near where a checkpoint stands.

The field's Jacobian J, the operator of a whole round, each player's Hessian, on some batches. A
checkpoint is no equilibrium: these are rates of growth now, and say nothing of where it will end.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from training.errors import StabilityError
from training.game.forward import Batch
from training.game.updates import UPDATES
from training.stability.equilibrium import Equilibrium, equilibrium
from training.stability.field import PLAYERS, Linearization, VectorField, as_analysed
from training.stability.memory import needed_bytes, require_memory
from training.stability.progress import Progress
from training.stability.rounds.round_operator import RoundOperator
from training.stability.rounds.stability_region import Region, region_of
from training.stability.rounds.step_limit import largest_stable_factor
from training.stability.run_game import RunGame
from training.stability.spectrum import (
    Complexes,
    Floats,
    Spectrum,
    numerical_abscissa,
    rotation_ratio,
    spectra,
    spectrum,
    without_vectors,
)

_STEP = 1e-5  # of the finite difference: its error is of the order of its square
_AGREEMENT = 1e-3
_ROUNDING = 1e-6  # of the largest eigenvalue
_LIMIT_WIDTH = 0.05
_LIMIT_VECTORS, _SPREAD_VECTORS = 24, 40  # of Krylov spaces
_ROUND_VECTORS = 48  # of a round's: they hold momenta too, and are what takes most memory
_MARGIN = 0.1  # around the limit, where it is tried
_NUM_TRIED = 20  # rounds


@dataclass(frozen=True, kw_only=True)
class BatchSpectrum:
    """What was measured on one batch."""

    speed: dict[str, float]
    """|v| of each player's part: 0 for both at an equilibrium."""
    largest: Spectrum
    """Of J, by modulus."""
    rightmost: Spectrum
    """Of J, by real part."""
    round: Spectrum
    """Of the round's operator, by modulus."""


@dataclass(frozen=True, kw_only=True)
class StepLimit:
    """How far both learning rates can be multiplied."""

    factor: float | None
    """The largest stable factor; None where no smaller rate is stable, infinity where all are."""
    below: float | None = None
    """Growth a round of the linearised game a tenth below it, from its leading eigenvector."""
    above: float | None = None
    """The same a tenth above."""
    flow: Complexes | None = None
    """Leading eigenvalues of the flow that small steps follow, a round of the present rates."""


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """The whole measurement."""

    batches: tuple[BatchSpectrum, ...]
    """Of each batch."""
    equilibrium: Equilibrium
    """On the first batch, like what follows."""
    rotation: float
    """|A| / |S| of J's antisymmetric and symmetric part."""
    numerical_abscissa: float | None
    """The largest eigenvalue of J's symmetric part; None where ARPACK didn't find it."""
    limit: StepLimit
    difference: float
    """Of a product with J from finite differences, relative."""
    num_rounds: int = 1
    """Rounds that the operator plays: with lookahead those between two of its steps."""
    region: Region | None = None
    """Where the flow's eigenvalues may lie; None where the rule of steps has no such region."""

    @property
    def radius(self) -> float:
        """The spectral radius of one round, the mean over the batches."""
        return float(np.mean(self.radii))

    @property
    def radii(self) -> list[float]:
        """The spectral radius of one round on each batch."""
        return [float(each.round.radius ** (1 / self.num_rounds)) for each in self.batches]

    @property
    def residual(self) -> float:
        """The relative residual of the round's leading eigenvalue, the largest of all batches."""
        return max(float(each.round.residuals[0]) for each in self.batches)

    @property
    def is_stable(self) -> bool:
        """True where the flow grows in no direction that was resolved, on the first batch."""
        first = self.batches[0]
        return first.rightmost.abscissa <= _ROUNDING * first.largest.radius


def analyse(
    game: RunGame,
    *,
    num_batches: int,
    batch_size: int | None,
    num: int,
    drift: float,
    progress: Progress,
) -> Analysis:
    """Measures a run's game.

    Args:
        game: where its checkpoint stands.
        num_batches: disjoint batches.
        batch_size: images in each; the training's if None.
        num: eigenvalues of each kind.
        drift: growth a round up to which a mode counts as stable.
        progress: is told what is computed.

    Raises:
        StabilityError: there is no Jacobian, or too little memory.
        ConfigError: the data doesn't give such batches.
    """
    game.require_differentiable()
    first, *others = game.batches(num_batches, batch_size)
    field = game.field(first)
    _require_memory(game, first, field)
    at = field.at()
    difference = require_derivative(field, at)
    found = [_on_batch(game, at, num, f"batch 1 of {num_batches}", progress, is_first=True)]
    watched = partial(progress.counted, "symmetric and antisymmetric part")
    jvp, vjp = watched(at.jvp), watched(at.vjp)
    whole = Analysis(
        batches=(),
        equilibrium=equilibrium(at, progress),
        rotation=rotation_ratio(jvp, vjp, at.size),
        numerical_abscissa=numerical_abscissa(jvp, vjp, at.size),
        limit=step_limit(game.round(at), drift=drift, progress=progress),
        difference=difference,
        num_rounds=game.round(at).num_rounds,
        region=region_of(game.round(at)),
    )
    del at, jvp, vjp  # the graphs of one batch at a time
    for index, batch in enumerate(others, 2):
        label = f"batch {index} of {num_batches}"
        found.append(_on_batch(game, game.field(batch).at(), num, label, progress, is_first=False))
    return replace(whole, batches=tuple(found))


def require_derivative(field: VectorField, at: Linearization) -> float:
    """Compares J u with central differences along a fixed random u.

    Returns:
        The relative difference.

    Raises:
        StabilityError: the field isn't finite, or they differ, as at a kink, where there is no
            Jacobian.
    """
    if not bool(torch.isfinite(at.value).all()):
        raise StabilityError(
            "the field isn't finite at this checkpoint: the game has diverged here; choose an "
            "earlier one with --checkpoint"
        )
    u = torch.from_numpy(np.random.default_rng(2).standard_normal(field.size))
    u /= u.norm()
    product = at.jvp(u)
    place = field.place
    central = (field(place + _STEP * u) - field(place - _STEP * u)) / (2 * _STEP)
    apart = (product - central).norm().item()
    size = max(central.norm().item(), product.norm().item(), 1e-300)
    difference: float = apart / size
    if not difference <= _AGREEMENT:  # also where it is no number
        raise StabilityError(
            f"a product with the Jacobian differs from finite differences by {difference:.1e}: the "
            "game has a kink here, as one-centred penalties (wgan-gp, dragan) have where D's "
            "gradient is 0; there is no Jacobian to analyse; `exponent` measures such a game"
        )
    return difference


def step_limit(played: RoundOperator, *, drift: float, progress: Progress) -> StepLimit:
    """Finds the largest stable factor on both rates, and tries the rounds just below and above.

    drift: growth a round, at the present rates, up to which a round counts as stable.
    """
    counted = progress.counted("flow", played.preconditioned)
    rightmost, largest = spectra(counted, played.jacobian.size, ("LR", "LM"))
    flow = np.unique(np.concatenate([rightmost.values, largest.values]).round(12))
    if rightmost.abscissa > drift:
        return StepLimit(factor=None, flow=flow)
    start: Floats | None = None

    def radius(factor: float) -> float:
        nonlocal start
        scaled = played.scaled(factor)
        name = f"rates times {factor:.3g}"
        try:
            found = spectrum(
                progress.counted(name, scaled.apply),
                played.size,
                "LM",
                num=2,
                start=start,
                num_vectors=_LIMIT_VECTORS,
                refine=False,
            )
        except FloatingPointError:  # steps so long that a round overflows
            return float("inf")
        # The next factor is near: from the leading vectors, mixed, it takes fewer products.
        start = found.vectors.real.sum(1) + found.vectors.imag.sum(1)
        return float(np.exp(np.log(found.radius) / played.num_rounds))

    factor = largest_stable_factor(radius, tolerance=_LIMIT_WIDTH, slack=drift)
    if factor is None or np.isinf(factor):
        return StepLimit(factor=factor, flow=flow)
    below, above = (_growth(played.scaled(factor * m)) for m in (1 - _MARGIN, 1 + _MARGIN))
    return StepLimit(factor=factor, below=below, above=above, flow=flow)


def _growth(played: RoundOperator) -> float:
    """The mean growth a round over the last half of some rounds of the linearised game."""
    leading = spectrum(played.apply, played.size, "LM", num=2, refine=False).vectors[:, 0]
    state = torch.from_numpy(leading.real.copy())
    sizes = []
    for _ in range(_NUM_TRIED):
        state = played.apply(state)
        sizes.append(state.norm().item())
        state = state / sizes[-1]
    return float(np.exp(np.mean(np.log(sizes[_NUM_TRIED // 2 :])) / played.num_rounds))


def _on_batch(
    game: RunGame,
    at: Linearization,
    num: int,
    label: str,
    progress: Progress,
    *,
    is_first: bool,
) -> BatchSpectrum:
    """The first batch is refined; the others show the spread, which is far wider than an error."""
    played = game.round(at)
    jvp = progress.counted(f"{label}, Jacobian", at.jvp)
    play = progress.counted(f"{label}, round", played.apply)
    options: dict[str, Any] = {"num": num, "refine": is_first}
    if not is_first:
        options["num_vectors"] = _SPREAD_VECTORS
    largest, rightmost = spectra(jvp, at.size, **options)
    # Nobody asks for the vectors, which are as long as the game has weights.
    largest, rightmost = map(without_vectors, (largest, rightmost))
    if is_first:
        options["num_vectors"] = _ROUND_VECTORS
    return BatchSpectrum(
        speed={player: at.value[at.rows(player)].norm().item() for player in PLAYERS},
        largest=largest,
        rightmost=rightmost,
        round=without_vectors(spectrum(play, played.size, "LM", **options)),
    )


def _require_memory(game: RunGame, batch: Batch, field: VectorField) -> None:
    remembered = [each.num_remembered for each in game.optimizers.values()]
    moves = int(UPDATES[game.config.update].looks_ahead)
    size = field.size * (1 + moves + max(remembered))
    need = needed_bytes(
        as_analysed(game.state.G.network),
        as_analysed(game.state.D.network),
        batch.z,
        batch.label,
        size,
        game.config.packing,
    )
    require_memory(need)
