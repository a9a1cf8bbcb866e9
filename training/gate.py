"""What a model must reach to be published: bounds on its figures, or not worse than CURRENT.

    coverage>=0.8        a bound; also > <= <
    not-worse            the Frechet distance (fid with Inception's features) against CURRENT's
    not-worse:coverage   another figure against CURRENT's

Reads figures in manifests; measures nothing and publishes nothing.
"""

import math
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from models.errors import NotInRepositoryError
from models.manifest import Manifest, Metric
from models.repository import Repository
from training.errors import ConfigError, GateError
from training.evaluation.judge import RESULTS
from training.evaluation.measures import ALL_FIGURES

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_BOUND = re.compile(r"\s*([a-z_]+)\s*(>=|<=|>|<)\s*(\S+)\s*")
_RELATIVE = re.compile(r"not-worse(?::([a-z_]+))?")
_HEADLINES = ("fid", "frechet_distance")


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One condition: a bound, or no operator for a comparison with CURRENT."""

    text: str
    figure: str | None
    """None stands for the Frechet distance, whatever its name is."""
    comparison: str = ""
    bound: float = math.nan

    @classmethod
    def parse(cls, text: str) -> "Gate":
        """Reads one.

        Raises:
            ConfigError: it is no gate, or on a figure that does not exist.
        """
        if match := _RELATIVE.fullmatch(text.strip()):
            gate = cls(text=text, figure=match[1])
        elif match := _BOUND.fullmatch(text):
            gate = cls(text=text, figure=match[1], comparison=match[2], bound=_number(match[3]))
        else:
            gate = cls(text=text, figure=None, comparison="?")
        if gate.comparison and not math.isfinite(gate.bound):
            raise ConfigError(
                f"gate is {text!r}, allowed: FIGURE>=NUMBER (or <=, >, <), not-worse or "
                "not-worse:FIGURE; for instance --gate 'coverage>=0.8'"
            )
        if gate.figure is not None and gate.figure not in ALL_FIGURES:
            raise ConfigError(
                f"gate is {text!r}: there is no figure {gate.figure!r}, allowed: "
                f"{', '.join(ALL_FIGURES)}"
            )
        return gate

    def find(self, figures: Iterable[str]) -> str | None:
        """Its figure among those measured; None where it isn't there."""
        measured = list(figures)
        wanted = _HEADLINES if self.figure is None else (self.figure,)
        return next((name for name in wanted if name in measured), None)

    def judge(self, metrics: Sequence[Metric], current: Manifest | None) -> str:
        """Lets a model through, and says why.

        Args:
            metrics: what was measured on it.
            current: the manifest of the version it would replace; None where there is none.

        Raises:
            GateError: it must not be published; figure, value and bound are named.
        """
        new = _metric(self, metrics)
        if new is None:
            raise GateError(
                f"gate {self.text!r}: {self.figure or _HEADLINES[-1]} was not measured on this "
                f"model, only {', '.join(metric.name for metric in metrics) or 'nothing'}; "
                "evaluate it with that figure"
            )
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
        if different := _differences(new, old):
            raise GateError(
                f"gate {self.text!r}: {new.name} is {new.value:g} here and {old.value:g} of "
                f"{which}, but they were measured differently: {different}; measure alike (the "
                "same --evaluation and data), or publish once without this gate"
            )
        bound = _worst_of(old)
        higher = ALL_FIGURES[new.name] == "higher"
        if new.value < bound if higher else new.value > bound:
            raise GateError(
                f"gate {self.text!r}: {new.name} is {new.value:g}, must be "
                f"{'>=' if higher else '<='} {bound:g}: {which} has {old.value:g}, and its 95% "
                "interval ends there"
            )
        return f"gate {self.text!r}: passed, {new.name} is {new.value:g}, of {which} {old.value:g}"


def parse_gates(texts: Iterable[str]) -> tuple[Gate, ...]:
    """All gates of a command line.

    Raises:
        ConfigError: one is none, or on a figure that does not exist.
    """
    return tuple(Gate.parse(text) for text in texts)


def check_measured(gates: Iterable[Gate], figures: Sequence[str], remedy: str) -> None:
    """Before anything is trained or measured: every gate's figure will be there.

    Raises:
        ConfigError: one won't be.
    """
    for gate in gates:
        if gate.find(figures) is None:
            wanted = gate.figure or _HEADLINES[-1]
            raise ConfigError(
                f"gate is {gate.text!r}, but {wanted} is not going to be measured, only "
                f"{', '.join(figures) or 'nothing'}; {remedy}"
            )


def judge(gates: Iterable[Gate], metrics: Sequence[Metric], current: Manifest | None) -> list[str]:
    """What each gate says of a model that passes all.

    Raises:
        GateError: one or more hold it back; all of them are told.
    """
    passed, failed = [], []
    for gate in gates:
        try:
            passed.append(gate.judge(metrics, current))
        except GateError as error:
            failed.append(str(error))
    if failed:
        raise GateError("; ".join(failed))
    return passed


def current_of(repository: Repository, name: str) -> Manifest | None:
    """The manifest of CURRENT; None where nothing was published yet.

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


def _differences(new: Metric, old: Metric) -> str:
    """Where two protocols differ, in words; empty where the figures are comparable."""
    keys = (*new.protocol, *(key for key in old.protocol if key not in new.protocol))
    return ", ".join(
        f"{key} {new.protocol.get(key)!r} here, {old.protocol.get(key)!r} there"
        for key in keys
        if key not in RESULTS and new.protocol.get(key) != old.protocol.get(key)
    )


def _worst_of(metric: Metric) -> float:
    """The end of its interval: an equally good model falls short of the value every other time."""
    low, high = metric.protocol.get("interval", (metric.value, metric.value))
    return float(low if ALL_FIGURES[metric.name] == "higher" else high)
