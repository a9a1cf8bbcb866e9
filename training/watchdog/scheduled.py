"""Numbers of a training that may have a schedule, as they are at a checkpoint and from there on.

A rescue trains on from a checkpoint. What a number is configured as says little there: its schedule
may have come to its end. This module knows no alarm and no remedy.
"""

import math
from dataclasses import replace
from operator import attrgetter
from typing import Any

from training.config.training import TrainingConfig, flatten, to_builtins
from training.optim.schedules import Schedule, Timetable

_NUMBERS = ("optim_G.lr", "optim_D.lr", "ema_kimg", "augment.probability")
"""Options that are one number and may have a schedule, beside the weights of regularisers."""


def there(config: TrainingConfig, target: str, start: float, cur_nimg: int) -> float:
    """Returns what a number is once cur_nimg images were shown. start: as configured."""
    return Timetable(config.schedules).at(target, start, cur_nimg)


def scaled(config: TrainingConfig, target: str, factor: float) -> tuple[Schedule, ...]:
    """Returns the schedules with a target's end times a factor.

    With its start times the same factor, the number is so many times what it was at every moment.
    """
    return tuple(
        replace(each, end=each.end * factor) if each.target == target else each
        for each in config.schedules
    )


def without(config: TrainingConfig, target: str) -> tuple[Schedule, ...]:
    """Returns the schedules but that of a target, which then keeps its start."""
    return tuple(each for each in config.schedules if each.target != target)


def last(config: TrainingConfig, target: str, start: float, cur_nimg: int) -> float:
    """Returns the value that a number has in the end, once its schedule has run out."""
    (kimg,) = [each.kimg for each in config.schedules if each.target == target] or [0.0]
    return there(config, target, start, max(cur_nimg, math.ceil(kimg * 1000)))


def ahead(config: TrainingConfig, cur_nimg: int) -> dict[str, Any]:
    """Returns what decides a training from there on, to compare.

    Numbers are pairs of what they are there and in the end. Two configurations of the same schedule
    times have equal pairs only if the training goes on alike.
    """
    plain = set(flatten(to_builtins(config))) - {"network.family", "regularizers", "schedules"}
    found: dict[str, Any] = {name: attrgetter(name)(config) for name in plain}
    starts = numbers(config)
    found |= {
        name: (there(config, name, start, cur_nimg), last(config, name, start, cur_nimg))
        for name, start in starts.items()
    }
    found["intervals"] = [(term.name, term.interval) for term in config.regularizers]
    found["schedules"] = [each for each in config.schedules if each.target not in starts]
    return found


def numbers(config: TrainingConfig) -> dict[str, float]:
    """Returns the numbers that may have a schedule with what they start as, by target."""
    options = {name: float(attrgetter(name)(config)) for name in _NUMBERS}
    return options | {term.name: term.weight for term in config.regularizers}
