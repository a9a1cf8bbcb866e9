"""What can go wrong in a training: one hierarchy, each error with the exit code of the process.

A message names the offending field, the value given, what is allowed and the remedy.
"""

import math
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from training.guard import Trip


class TrainingError(Exception):
    """Any failure that a run ends with on purpose: message on stderr, no traceback."""

    exit_code: ClassVar[int] = 1


class ConfigError(TrainingError):
    """An option that makes no training, alone or beside another."""

    exit_code: ClassVar[int] = 2


class DataError(TrainingError):
    """Data that can't be found, read or used."""

    exit_code: ClassVar[int] = 3


class CheckpointError(TrainingError):
    """A run that can't be resumed: nothing to resume from, or it was of another architecture."""

    exit_code: ClassVar[int] = 4


class NonFiniteError(TrainingError):
    """A loss or gradient that is not finite; the weights were not updated by it."""

    exit_code: ClassVar[int] = 5

    def __init__(self, trip: "Trip", message: str) -> None:
        """trip: what was not finite, and when."""
        super().__init__(message)
        self.trip = trip


class WatchdogError(TrainingError):
    """A training that showed a known failure, and was told to stop, or rescued often enough."""

    exit_code: ClassVar[int] = 10


class ExportError(TrainingError):
    """A generator that can't be exported, or whose ONNX file doesn't give what torch gives."""

    exit_code: ClassVar[int] = 6


class PublishError(TrainingError):
    """A bundle that can't be published into the repository."""

    exit_code: ClassVar[int] = 7


class GateError(TrainingError):
    """A model that a gate keeps out: good enough to look at, not to be published."""

    exit_code: ClassVar[int] = 8


class EvaluationError(TrainingError):
    """A model, or features, that can't be used to judge with."""

    exit_code: ClassVar[int] = 9


def require(condition: bool, field: str, value: object, allowed: str, remedy: str) -> None:
    """Raises ConfigError, naming all four, unless the condition holds."""
    if not condition:
        raise ConfigError(f"{field} is {value!r}, allowed: {allowed}; {remedy}")


def require_number(
    field: str, value: float, *, above: float, remedy: str = "choose another value"
) -> None:
    """Raises ConfigError unless the value is finite and greater than `above`."""
    allowed = f"a finite number above {above:g}"
    require(math.isfinite(value) and value > above, field, value, allowed, remedy)
