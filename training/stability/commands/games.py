"""`games`: the gauge's table, the verdicts by simulation, and pictures of the paths."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from training.errors import ConfigError, StabilityError
from training.finite_json import as_json
from training.game.objectives import OBJECTIVES
from training.game.updates import UPDATES
from training.stability.closed_form.gauge import Check
from training.stability.closed_form.golden import checks
from training.stability.closed_form.simulation import METHODS, ORDERS, play, verdict
from training.stability.closed_form.trajectories import drawing
from training.stability.closed_form.zoo import NONE, WITHOUT, Row, zoo


@dataclass(frozen=True, kw_only=True)
class Games:
    """Measures games whose answers are known, and compares."""

    needs_run: ClassVar[bool] = False
    json: bool = False
    """Print JSON instead of tables."""
    simulate: bool = True
    """Also play the Dirac-GAN by the training's own stepper, one row for each method of Mescheder
    et al. 2018."""
    trajectory: Path | None = None
    """Draw the paths of these games into this SVG file."""

    def run(self, folder: Path, say: Callable[[str], None]) -> str:
        """Returns the text to print. folder: not used. say: is given lines of progress.

        Raises:
            StabilityError: a measurement differs from the closed form.
            ConfigError: the SVG file can't be written.
        """
        measured, combined = list(checks()), list(zoo())
        rows: list[dict[str, Any]] = []
        if self.simulate or self.trajectory is not None:
            say(f"playing {len(METHODS) * len(ORDERS)} games")
            rows = self._played()
        text = (
            self._as_json(measured, combined, rows)
            if self.json
            else "\n".join([_tables(measured, rows), "", *_zoo_table(combined)])
        )
        everything = [*measured, *(check for row in combined for check in row.checks)]
        if failed := [check for check in everything if not check.passes]:
            names = ", ".join(f"{check.game}: {check.quantity}" for check in failed)
            raise StabilityError(f"{text}\n{len(failed)} differ from the closed form: {names}")
        return text

    def _played(self) -> list[dict[str, Any]]:
        rows, panels = [], []
        for method in METHODS:
            row: dict[str, Any] = {"method": method.name, "paper": method.paper_says}
            for order in ORDERS:
                path = play(method, order)
                row[order] = verdict(path)
                panels.append((f"{method.name}, {order}", row[order], path))
            rows.append(row)
        if self.trajectory is not None:
            try:
                self.trajectory.write_text(drawing(panels), encoding="utf-8")
            except OSError as error:
                raise ConfigError(
                    f"trajectory is {str(self.trajectory)!r}: {error.strerror}; choose another file"
                ) from error
        return rows

    def _as_json(
        self, measured: list[Check], combined: list[Row], rows: list[dict[str, Any]]
    ) -> str:
        combinations = [
            {
                "objective": row.objective,
                "regularizer": row.regularizer,
                "why_not": row.why_not or None,
                "checks": list(map(_record, row.checks)),
            }
            for row in combined
        ]
        found = {"games": list(map(_record, measured)), "zoo": combinations, "simulation": rows}
        return as_json({**found, "without": WITHOUT})


def _record(check: Check) -> dict[str, Any]:
    return {
        "game": check.game,
        "quantity": check.quantity,
        "measured": [[value.real, value.imag] for value in map(complex, check.measured)],
        "closed_form": [[value.real, value.imag] for value in map(complex, check.expected)],
        "difference": check.difference,
        "tolerance": check.tolerance,
    }


def _zoo_table(combined: list[Row]) -> list[str]:
    """A line for each objective beside each regulariser, then why the others have none."""
    names = list(UPDATES)
    heads = "  ".join(names)
    lines = [
        "Dirac-GAN, weights 0.3: Lyapunov exponents a round by each update, steps of 0.7",
        f"{'objective':26}  {'with':16}  {'lambda':24}  {heads}  differs by",
    ]
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in combined:
        if row.flow is None:
            reasons.setdefault((row.regularizer, row.why_not), []).append(row.objective)
            continue
        value = max(map(complex, row.flow.measured), key=lambda each: (each.imag, each.real))
        exponents = "  ".join(
            f"{complex(each.measured[0]).real + 0.0:{len(name)}.6f}"
            for name, each in zip(names, row.exponents, strict=True)
        )
        apart = max(check.difference for check in row.checks)
        added = "-" if row.regularizer == NONE else row.regularizer
        lines.append(
            f"{row.objective:26}  {added:16}  {written(value):24}  {exponents}  {apart:.0e}"
        )
    lines.append("")
    for (name, why), objectives in reasons.items():
        beside = "" if len(objectives) == len(OBJECTIVES) else f" beside {', '.join(objectives)}"
        lines.append(f"{name}{beside}: {why}")
    alone = {name: why for name, why in WITHOUT.items() if (name, why) not in reasons}
    return [*lines, *(f"{name}: {why}" for name, why in alone.items())]


def _tables(measured: list[Check], rows: list[dict[str, Any]]) -> str:
    width = max(len(check.game) for check in measured)
    wide = max(len(check.quantity) for check in measured)
    lines = [f"{'game':{width}}  {'quantity':{wide}}  {'measured':34}  differs by"]
    for check in measured:
        upper = [value for value in map(complex, check.measured) if value.imag >= 0]
        values = ", ".join(map(written, sorted(upper, key=abs, reverse=True)[:2]))
        lines.append(
            f"{check.game:{width}}  {check.quantity:{wide}}  {values:34}  {check.difference:.0e}"
        )
    if rows:
        lines += ["", f"{'method':20}  {'simultaneous':12}  {'alternating':12}  in the paper"]
    for row in rows:
        paper = "converges" if row["paper"] else "doesn't converge"
        played = "  ".join(f"{row[order]:12}" for order in ORDERS)
        lines.append(f"{row['method']:20}  {played}  {paper}")
    return "\n".join(lines)


def written(value: complex) -> str:
    """A number to six digits; of a conjugate pair both: a +- bi."""
    real = value.real + 0.0 if abs(value.real) >= 5e-7 else 0.0
    if abs(value.imag) < 5e-7:
        return f"{real:.6f}"
    return f"{real:.6f} +- {abs(value.imag):.6f}i"
