"""Gates: conditions on a model's figures that must hold before it is published.

    coverage>=0.8        a bound; also > <= <
    not-worse            the Frechet distance (fid with Inception's features) against CURRENT's
    not-worse:coverage   another figure against CURRENT's
    not-worse:coverage:0.02   worse than CURRENT's by 0.02 at most, whatever its interval

This module compares figures from manifests. It neither measures nor publishes.
"""

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.bundle.manifest import Manifest, Metric
from models.errors import NotInRepositoryError
from models.repository import Repository
from training.errors import ConfigError, GateError
from training.evaluation.evaluator import RESULTS
from training.evaluation.measures import ALL_FIGURES

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_BOUND = re.compile(r"\s*([a-z_]+)\s*(>=|<=|>|<)\s*(\S+)\s*")
_RELATIVE = re.compile(r"not-worse(?::([a-z_]+)(?::(\S+))?)?")
_HEADLINES = ("fid", "frechet_distance")


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One condition: a bound on a figure, or a comparison with CURRENT's figure."""

    text: str
    """As on the command line."""
    figure: str | None
    """None for the Frechet distance, under whichever of its names it was measured."""
    comparison: str = ""
    """One of >=, <=, > and <; empty for a comparison with CURRENT."""
    bound: float = math.nan
    margin: float | None = None
    """How much worse than CURRENT is allowed; None for the end of CURRENT's interval."""

    @classmethod
    def parse(cls, text: str) -> "Gate":
        """Parses a gate.

        Raises:
            ConfigError: the text is no gate, or names a figure that does not exist.
        """
        if match := _RELATIVE.fullmatch(text.strip()):
            margin = None if match[2] is None else _number(match[2])
            gate = cls(text=text, figure=match[1], margin=margin)
        elif match := _BOUND.fullmatch(text):
            gate = cls(text=text, figure=match[1], comparison=match[2], bound=_number(match[3]))
        else:
            gate = cls(text=text, figure=None, comparison="?")
        has_no_bound = bool(gate.comparison) and not math.isfinite(gate.bound)
        if has_no_bound or not 0 <= (gate.margin or 0.0) < math.inf:
            raise ConfigError(
                f"gate is {text!r}, allowed: FIGURE>=NUMBER (or <=, >, <), not-worse, "
                "not-worse:FIGURE or not-worse:FIGURE:MARGIN with a margin of 0 or more; for "
                "instance --gate 'coverage>=0.8'"
            )
        if gate.figure is not None and gate.figure not in ALL_FIGURES:
            raise ConfigError(
                f"gate is {text!r}: there is no figure {gate.figure!r}, allowed: "
                f"{', '.join(ALL_FIGURES)}"
            )
        return gate

    def find(self, figures: Iterable[str]) -> str | None:
        """The gate's figure among the measured ones; None where it wasn't measured."""
        measured = list(figures)
        wanted = _HEADLINES if self.figure is None else (self.figure,)
        return next((name for name in wanted if name in measured), None)

    def check(self, metrics: Sequence[Metric], current: Manifest | None) -> str:
        """Checks a model's figures.

        Args:
            metrics: the model's figures.
            current: the manifest of the version it would replace; None where there is none.

        Returns:
            A sentence that says why the gate passed.

        Raises:
            GateError: the gate failed; the message names figure, value and bound.
        """
        new = _metric(self, metrics)
        if new is None:
            raise GateError(
                f"gate {self.text!r}: {self.figure or _HEADLINES[-1]} was not measured on this "
                f"model, only {', '.join(metric.name for metric in metrics) or 'nothing'}; "
                "evaluate it with that figure"
            )
        if not math.isfinite(new.value):
            raise GateError(f"gate {self.text!r}: {new.name} is {new.value:g}, must be a number")
        if self.comparison:
            if not _OPERATORS[self.comparison](new.value, self.bound):
                raise GateError(
                    f"gate {self.text!r}: {new.name} is {new.value:g}, must be "
                    f"{self.comparison} {self.bound:g}"
                )
            return f"gate {self.text!r}: passed, {new.name} is {new.value:g}"
        return self._not_worse(new, current)

    def _not_worse(self, new: Metric, current: Manifest | None) -> str:
        if current is None:
            return f"gate {self.text!r}: passed, there is no CURRENT to be worse than"
        which = f"CURRENT ({current.name} version {current.version})"
        old = _metric(self, current.metrics)
        if old is None:
            raise GateError(
                f"gate {self.text!r}: {which} has no figure {new.name}, this model has "
                f"{new.value:g}; publish once without this gate, or promote by hand"
            )
        if different := _differences(new.protocol, old.protocol):
            raise GateError(
                f"gate {self.text!r}: {new.name} is {new.value:g} here and {old.value:g} of "
                f"{which}, but they were measured differently: {different}; measure both in the "
                "same way (the same --evaluation and data), or publish once without this gate"
            )
        bound = self.worst(old)
        if not math.isfinite(bound):
            raise GateError(
                f"gate {self.text!r}: {which} has {old.name} {old.value:g} up to {bound:g}, with "
                "which nothing can be compared; publish once without this gate"
            )
        higher = ALL_FIGURES[new.name] == "higher"
        if new.value < bound if higher else new.value > bound:
            ends = "its 95% interval ends there" if self.margin is None else "the margin ends there"
            raise GateError(
                f"gate {self.text!r}: {new.name} is {new.value:g}, must be "
                f"{'>=' if higher else '<='} {bound:g}: {which} has {old.value:g}, and {ends}"
            )
        return f"gate {self.text!r}: passed, {new.name} is {new.value:g}, of {which} {old.value:g}"

    def worst(self, old: Metric) -> float:
        """The worst value that passes, from CURRENT's figure.

        It isn't CURRENT's own value: an equally good model misses that half of the time.
        """
        higher = ALL_FIGURES[old.name] == "higher"
        if self.margin is not None:
            return old.value - self.margin if higher else old.value + self.margin
        low, high = old.protocol.get("interval", (old.value, old.value))
        worst = low if higher else high
        return math.nan if worst is None else float(worst)  # JSON has no NaN


def parse_gates(texts: Iterable[str]) -> tuple[Gate, ...]:
    """Parses all gates of a command line.

    Raises:
        ConfigError: one is no gate, or names a figure that does not exist.
    """
    return tuple(Gate.parse(text) for text in texts)


def check_measured(gates: Iterable[Gate], figures: Sequence[str], remedy: str) -> None:
    """Checks, before anything is trained or measured, that every gate's figure will be measured.

    Args:
        gates: of the command.
        figures: names of the figures that will be measured.
        remedy: the end of the message.

    Raises:
        ConfigError: a gate's figure is missing.
    """
    for gate in gates:
        if gate.find(figures) is None:
            wanted = gate.figure or _HEADLINES[-1]
            raise ConfigError(
                f"gate is {gate.text!r}, but {wanted} is not going to be measured, only "
                f"{', '.join(figures) or 'nothing'}; {remedy}"
            )


def figures_against_current(gates: Iterable[Gate], figures: Sequence[str]) -> set[str]:
    """The names of the figures that the gates compare with CURRENT's."""
    found = (gate.find(figures) for gate in gates if not gate.comparison)
    return {name for name in found if name is not None}


def check_comparable(
    gates: Iterable[Gate], protocols: Mapping[str, Mapping[str, Any]], current: Manifest
) -> None:
    """Checks, before anything is trained, that CURRENT's figures were measured in the same way.

    Args:
        gates: of the command.
        protocols: protocol of each figure that will be compared with CURRENT's, without results.
        current: the manifest of CURRENT.

    Raises:
        ConfigError: CURRENT lacks a figure or has another protocol; the message names both sides.
    """
    which = f"CURRENT ({current.name} version {current.version})"
    for gate in gates:
        name = None if gate.comparison else gate.find(protocols)
        if name is None:
            continue
        old = next((metric for metric in current.metrics if metric.name == name), None)
        if old is None:
            there = ", ".join(metric.name for metric in current.metrics) or "none at all"
            raise ConfigError(
                f"gate is {gate.text!r}, but {which} has no figure {name}: {there}; publish once "
                "without this gate, or promote by hand"
            )
        if different := _differences(protocols[name], old.protocol):
            raise ConfigError(
                f"gate is {gate.text!r}, but {which} was measured differently: {different}; "
                "measure in the same way (the same evaluation, features and data), or publish once "
                "without this gate"
            )


def check_gates(
    gates: Iterable[Gate], metrics: Sequence[Metric], current: Manifest | None
) -> list[str]:
    """Checks all gates, so that one run reports every gate that fails.

    Args:
        gates: of the command.
        metrics: the model's figures.
        current: the manifest of CURRENT; None where there is none.

    Returns:
        A sentence for each gate that says why it passed.

    Raises:
        GateError: one or more gates failed; the message has all of them.
    """
    passed, failed = [], []
    for gate in gates:
        try:
            passed.append(gate.check(metrics, current))
        except GateError as error:
            failed.append(str(error))
    if failed:
        raise GateError("; ".join(failed))
    return passed


def worse_than(metrics: Sequence[Metric], current: Manifest) -> str | None:
    """Words for a model whose Frechet distance is worse than CURRENT's, beyond its interval.

    None where it isn't, or where the two were measured differently.
    """
    gate = Gate.parse("not-worse")
    new, old = _metric(gate, metrics), _metric(gate, current.metrics)
    if new is None or old is None or new.name != old.name:
        return None
    bound = gate.worst(old)
    if _differences(new.protocol, old.protocol) or not new.value > bound:
        return None
    return (
        f"this model is worse than version {current.version} by its own figures: {new.name} is "
        f"{new.value:g}, was {old.value:g}"
    )


def current_of(repository: Repository, name: str) -> Manifest | None:
    """The manifest of the version that is CURRENT; None where nothing was published yet.

    Raises:
        ModelError: CURRENT or its bundle can't be read.
    """
    try:
        return repository.bundle(name).manifest
    except NotInRepositoryError:
        return None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _metric(gate: Gate, metrics: Iterable[Metric]) -> Metric | None:
    by_name = {metric.name: metric for metric in metrics}
    name = gate.find(by_name)
    return None if name is None else by_name[name]


def _differences(new: Mapping[str, Any], old: Mapping[str, Any]) -> str:
    """The entries in which two protocols differ, for a message; empty where none do."""
    keys = (*new, *(key for key in old if key not in new))
    return ", ".join(
        f"{key} {new.get(key)!r} here, {old.get(key)!r} there"
        for key in keys
        if key not in RESULTS and new.get(key) != old.get(key)
    )
