"""The errors of training: one hierarchy, in which each class has the exit code of the process.

A message names the field, the value given, what is allowed and the remedy.
"""

import math
from dataclasses import dataclass
from typing import ClassVar


class TrainingError(Exception):
    """Base class of expected failures, which are printed as one message without a traceback."""

    exit_code: ClassVar[int] = 1


class ConfigError(TrainingError):
    """An option is not allowed, alone or beside another option."""

    exit_code: ClassVar[int] = 2


class DataError(TrainingError):
    """Data can't be found, read or used."""

    exit_code: ClassVar[int] = 3


class CheckpointError(TrainingError):
    """A run can't be resumed: it has no usable checkpoint, or other options, data or networks."""

    exit_code: ClassVar[int] = 4


@dataclass(frozen=True, kw_only=True)
class NonFinite:
    """Losses or gradients that were not finite."""

    terms: tuple[str, ...]
    """Names of losses and gradients."""
    cur_nimg: int
    """Images shown before the round in which it happened."""


class NonFiniteError(TrainingError):
    """A loss or gradient is not finite; no weight was updated with it."""

    exit_code: ClassVar[int] = 5

    def __init__(self, non_finite: NonFinite, message: str) -> None:
        """non_finite: the losses and gradients concerned."""
        super().__init__(message)
        self.non_finite = non_finite


class WatchdogError(TrainingError):
    """The watchdog found a known failure, and stops or has no rescue left."""

    exit_code: ClassVar[int] = 10


class ExportError(TrainingError):
    """A generator can't be exported, or its ONNX file gives other images than torch."""

    exit_code: ClassVar[int] = 6


class PublishError(TrainingError):
    """A bundle can't be published into the repository."""

    exit_code: ClassVar[int] = 7


class GateError(TrainingError):
    """A gate failed, so that the model is not published."""

    exit_code: ClassVar[int] = 8


class EvaluationError(TrainingError):
    """A model can't be evaluated, or the features can't be computed."""

    exit_code: ClassVar[int] = 9


class StabilityError(TrainingError):
    """A game can't be analysed, or the instrument differs from a closed form."""

    exit_code: ClassVar[int] = 11


class UnsavedError(TrainingError):
    """A run's state or model can't be written, for a full disk, say; it can be resumed."""

    exit_code: ClassVar[int] = 12


class RecordsError(TrainingError):
    """The model is published, but some of its run's files could not be written."""

    exit_code: ClassVar[int] = 13


class MemoryExhaustedError(TrainingError):
    """A training needs more memory than its device has."""

    exit_code: ClassVar[int] = 14


_EXHAUSTED = ("out of memory", "DefaultCPUAllocator: can't allocate memory")
_NOT_DETERMINISTIC = "does not have a deterministic implementation"


def meaning_of(error: Exception) -> TrainingError | None:
    """What a library's error means for who trains; None where nothing is known of it.

    torch's errors are told by their words: its classes differ between devices and releases.
    """
    text = str(error)
    first = text.strip().splitlines()[0][:300] if text.strip() else type(error).__name__
    if isinstance(error, MemoryError) or any(words in text for words in _EXHAUSTED):
        return MemoryExhaustedError(
            f"not enough memory for a step: {first}; --accumulate 2 (or 4 ...) computes the same "
            "batch in parts that need less, --compute.precision bf16 halves the feature maps; or "
            "choose a smaller --batch-size or network. What was saved goes on with --resume"
        )
    if _NOT_DETERMINISTIC in text:
        return ConfigError(
            f"compute.deterministic is True, allowed: False with this network or augmentation: "
            f"{first}; leave --compute.deterministic out"
        )
    return None


def require(condition: bool, field: str, value: object, allowed: str, remedy: str) -> None:
    """Raises ConfigError unless the condition holds.

    Args:
        condition: True where the value is allowed.
        field: the option's name, as in data.resolution.
        value: the value given.
        allowed: the allowed values, in words.
        remedy: what to do, in words.
    """
    if not condition:
        raise ConfigError(f"{field} is {value!r}, allowed: {allowed}; {remedy}")


def require_number(
    field: str, value: float, *, above: float, remedy: str = "choose another value"
) -> None:
    """Raises ConfigError unless the value is finite and greater than `above`.

    field and remedy are those of `require`.
    """
    allowed = f"a finite number above {above:g}"
    require(math.isfinite(value) and value > above, field, value, allowed, remedy)
