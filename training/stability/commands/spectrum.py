"""`spectrum RUN`: the report of a run's spectrum, as text with its limits said, and as JSON."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from training.errors import require, require_number
from training.finite_json import as_json
from training.stability.analysis import Analysis, StepLimit, analyse
from training.stability.commands.results import keep
from training.stability.progress import Progress
from training.stability.run_game import RunGame
from training.stability.spectrum import Complexes, Extremes, Spectrum

UNRESOLVED = 1e-2
"""Relative residual of the leading eigenvalue above which it decides nothing that is nearer."""
LIMITS = (
    "A checkpoint is no equilibrium (|v| is not 0): these are rates of growth now, not a forecast.",
    "Adam's second moments are held; at an equilibrium Adam itself has no linear regime.",
    "One batch is held, training draws new ones: where `exponent` disagrees, it is right.",
    "Stable isn't Nash, and nothing here is global: another point may behave otherwise.",
)


@dataclass(frozen=True, kw_only=True)
class SpectrumCommand:
    """Measures the leading eigenvalues of a run's game, and of one round of its training."""

    needs_run: ClassVar[bool] = True
    checkpoint: str | None = None
    """Name of a file in RUN/checkpoints, or a path; the newest by default."""
    batches: int = 3
    """Disjoint batches to measure on; their spread is told."""
    batch_size: int | None = None
    """Images in each; the training's batch size by default."""
    num: int = 4
    """Eigenvalues of each kind."""
    drift: float = 1e-3
    """Growth a round up to which a direction counts as standing still."""
    json: bool = False
    """Print JSON instead of text."""

    def run(self, folder: Path, say: Callable[[str], None]) -> str:
        """Returns the report. folder: of the run. say: is given lines of progress.

        Raises:
            TrainingError: the run can't be read, or its game can't be analysed.
        """
        require(1 <= self.num <= 20, "num", self.num, "1 .. 20", "set --num")
        require_number("drift", self.drift, above=0, remedy="set --drift")
        game = RunGame.open(folder, self.checkpoint)
        found = analyse(
            game,
            num_batches=self.batches,
            batch_size=self.batch_size,
            num=self.num,
            drift=self.drift,
            progress=Progress(say),
        )
        result = record(game, found, self.drift)
        keep(folder, "spectrum", game.state.cur_nimg, result, say)
        return as_json(result) if self.json else text(game, found, self.drift)


def verdict(found: Analysis, drift: float) -> str:
    """Says in a sentence what a round does here."""
    standing = found.limit.standing
    if found.nothing_moves:
        return (
            f"{_capital(standing)}, and a spectrum says nothing of this training; choose another "
            "checkpoint with --checkpoint."
        )
    if standing:
        return f"{_capital(standing)}; a round is the other player's alone. {_growth(found, drift)}"
    return _growth(found, drift)


def _growth(found: Analysis, drift: float) -> str:
    leading = found.batches[0].round.values[0]
    apart = abs(found.radius - 1 - drift)
    if found.residual > max(UNRESOLVED, apart):
        return (
            f"Undecided: the round's leading eigenvalue is known to {found.residual:.0e} only, and "
            f"its size {found.radius:.5f} is nearer to 1 than that."
        )
    if found.radius > 1 + drift:
        rounds = 1 / np.log(found.radius)
        turning = abs(leading.imag) > 1e-3 * abs(leading)
        how = "without turning"
        if turning:
            how = f"turning once in {found.num_rounds * _period(leading):.0f} rounds"
        if leading.real < 0 and not turning:
            how = "changing its sign every round, as steps that are too long do"
        return f"Growth now: a deviation grows e-fold in {rounds:.0f} rounds, {how}."
    return f"No growth beyond {drift:g} a round: deviations stay or decay here."


def text(game: RunGame, found: Analysis, drift: float) -> str:
    """Writes the report."""
    point = found.equilibrium
    first = found.batches[0]
    lines = [
        f"{game.config.recipe}, {game.checkpoint.name}: {game.state.cur_nimg / 1000:.3f} kimg",
        "",
        verdict(found, drift),
        _limit(found.limit),
        "",
        f"{'':24}{'batch 1':>12}  largest and smallest of {len(found.batches)} batches",
        _row("|v| of G", [each.speed["G"] for each in found.batches]),
        _row("|v| of D", [each.speed["D"] for each in found.batches]),
        _row("one round: |mu|", found.radii, digits=6),
        _row("J: largest |lambda|", [each.largest.radius for each in found.batches]),
        _row("J: largest Re lambda", [each.rightmost.abscissa for each in found.batches]),
        "",
        *_eigenvalues(f"{_rounds(found)}, largest modulus (mu)", first.round),
        *_eigenvalues("Jacobian, largest modulus (lambda)", first.largest),
        *_eigenvalues("Jacobian, largest real part (lambda)", first.rightmost),
        "",
        f"H_G, G's own Hessian: {_between(point.block_G)}",
        f"H_D, D's own Hessian: {_between(point.block_D)}",
        _schur(found),
        *(f"Not found: {line}." for line in point.unresolved),
        f"At this point: {point.kind(is_stable=found.is_stable)}.",
        f"Rotation |A|/|S|: {found.rotation:.3g} (0 descends, large circles). Numerical abscissa "
        f"{_found(found.numerical_abscissa)}: how fast a deviation may grow at first.",
        f"A product with J differs from finite differences by {found.difference:.0e}, at most, on "
        "each batch.",
        "",
        *LIMITS,
        *(f"Held: {note}." for note in game.notes),
    ]
    return "\n".join(lines)


def record(game: RunGame, found: Analysis, drift: float) -> dict[str, Any]:
    """The report as JSON types; complex numbers as [real, imaginary]."""
    point, limit = found.equilibrium, found.limit
    return {
        "run": str(game.folder),
        "checkpoint": game.checkpoint.name,
        "cur_nimg": game.state.cur_nimg,
        "verdict": verdict(found, drift),
        "point": point.kind(is_stable=found.is_stable),
        "unresolved": point.unresolved,
        "drift": drift,
        "num_rounds": found.num_rounds,
        "batches": [
            {
                "speed": each.speed,
                "largest": _recorded(each.largest),
                "rightmost": _recorded(each.rightmost),
                "round": _recorded(each.round),
            }
            for each in found.batches
        ],
        "radius": None if found.nothing_moves else found.radius,
        "standing": found.limit.standing,
        "step_limit": {
            # JSON has no infinity.
            "factor": "unbounded" if limit.factor == float("inf") else limit.factor,
            "below": limit.below,
            "above": limit.above,
            "says": _limit(limit),
        },
        "flow": _pairs(limit.flow),
        "region": None
        if found.region is None
        else {
            "border": _pairs(found.region.border),
            "rule": found.region.rule,
            "exact": found.region.is_exact,
        },
        "hessian_G": point.block_G,
        "hessian_D": point.block_D,
        "schur_G": point.schur_G,
        "tau": point.tau,
        "rotation": found.rotation,
        "numerical_abscissa": found.numerical_abscissa,
        "difference": found.difference,
        "limits": [*LIMITS, *game.notes],
    }


def _recorded(found: Spectrum) -> dict[str, Any]:
    return {
        "values": _pairs(found.values),
        "residuals": found.residuals.tolist(),
        "products": found.num_products,
        "whole": found.is_whole,
    }


def _pairs(values: Complexes | None) -> list[list[float]] | None:
    return None if values is None else [[each.real, each.imag] for each in values.tolist()]


def _rounds(found: Analysis) -> str:
    """What the operator plays: with lookahead as many rounds as lie between two of its steps."""
    return "round" if found.num_rounds == 1 else f"{found.num_rounds} rounds with lookahead"


def _period(mu: complex) -> float:
    return float(2 * np.pi / abs(np.angle(mu)))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _limit(limit: StepLimit) -> str:
    if limit.standing:
        return (
            f"There is no largest stable rate to tell, as {limit.standing.replace(':', ',')}; "
            "choose another checkpoint with --checkpoint."
        )
    if limit.factor is None:
        return "No smaller learning rate is stable here: the flow itself grows."
    if np.isinf(limit.factor):
        return "No learning rate is too large for the linearised game."
    assert limit.below is not None
    assert limit.above is not None
    return (
        f"Largest stable rates here: {limit.factor:.3g} times the present ones (growth a round, "
        f"tried on the linearised game: {limit.below:.5f} a tenth below, {limit.above:.5f} a tenth "
        "above)."
    )


def _row(name: str, values: list[float], digits: int = 4) -> str:
    spread = f"{max(values):.{digits + 1}g} .. {min(values):.{digits + 1}g}"
    return f"{name:24}{values[0]:>12.{digits + 1}g}  {spread}"


def _eigenvalues(name: str, found: Spectrum) -> list[str]:
    kind = "all computed" if found.is_whole else f"{found.num_products} products"
    lines = [f"{name}, {kind}:"]
    pairs = zip(found.values, found.residuals, strict=True)
    for value, residual in list(pairs)[:6]:
        sign = f"{value.real:.6g} {value.imag:+.6g}i"
        lines.append(f"  {sign:32} |.| {abs(value):<10.6g} residual {residual:.0e}")
    return lines


def _schur(found: Analysis) -> str:
    point = found.equilibrium
    if point.schur_G is not None and None in point.schur_G:
        return "G's Schur complement: not found"
    if point.schur_G is None:
        return "G's Schur complement: none, as H_D has directions that are not positive"
    tau = "" if point.tau is None else f"; stable from tau = {point.tau:.4g} on"
    return f"G's Schur complement: {_between(point.schur_G)}{tau}"


def _between(ends: Extremes) -> str:
    return " .. ".join(map(_found, ends))


def _found(value: float | None) -> str:
    return "not found" if value is None else f"{value:.4g}"
