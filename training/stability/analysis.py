"""The spectrum of a run's game: what it does next, near where a checkpoint stands.

The field's Jacobian J, the operator of a whole round, each player's Hessian, on some batches. A
checkpoint is no equilibrium: these are rates of growth now, and say nothing of where it will end.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from training.stability.equilibrium import Equilibrium, equilibrium
from training.stability.field import PLAYERS, Linearization
from training.stability.memory import KRYLOV, Held
from training.stability.opening import difference_on, opened, state_vectors
from training.stability.progress import Progress
from training.stability.rounds.frozen_optimizers import NOTHING_MOVES
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
    """The largest stable factor; None where no smaller rate is stable, infinity where all are. None
    too where a player stands still."""
    below: float | None = None
    """Growth a round of the linearised game a tenth below it, from its leading eigenvector."""
    above: float | None = None
    """The same a tenth above."""
    flow: Complexes | None = None
    """Leading eigenvalues of the flow that small steps follow, a round of the present rates."""
    standing: str = ""
    """Says who doesn't move here, so that no factor on the rates means anything."""


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
    """Of a product with J from finite differences, relative, the largest of all batches."""
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
    def nothing_moves(self) -> bool:
        """True where both players stand still."""
        return self.limit.standing.endswith(NOTHING_MOVES)

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
    held = Held(linearizations=1, vectors=KRYLOV * state_vectors(game))
    batches = opened(game, held, num_batches=num_batches, batch_size=batch_size)
    difference = difference_on(game, batches)
    first, *others = batches
    at = game.field(first).at()
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
        region=None if game.round(at).standing else region_of(game.round(at)),
    )
    del at, jvp, vjp  # the graphs of one batch at a time
    for index, batch in enumerate(others, 2):
        label = f"batch {index} of {num_batches}"
        found.append(_on_batch(game, game.field(batch).at(), num, label, progress, is_first=False))
    return replace(whole, batches=tuple(found))


def step_limit(played: RoundOperator, *, drift: float, progress: Progress) -> StepLimit:
    """Finds the largest stable factor on both rates, and tries the rounds just below and above.

    drift: growth a round, at the present rates, up to which a round counts as stable.
    """
    if played.standing:
        return StepLimit(factor=None, standing=played.standing)
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
