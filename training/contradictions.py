"""Options that are fine alone and contradict each other: refused before a training starts.

Each rule names both options, their values and what to change. What one option may be is its own
class's to say.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from training.errors import require
from training.objectives import OBJECTIVES
from training.regularizers import PENALTIES, Penalty

if TYPE_CHECKING:
    from training.config import TrainingConfig

RATES = tuple(f"optim_{player}.{rate}" for player in "GD" for rate in ("lr", "beta1", "beta2"))


def check(config: "TrainingConfig") -> None:
    """Raises ConfigError where two options contradict each other."""
    _check_terms(config)
    _check_penalties(config)
    _check_schedules(config)
    _check_augment(config)
    _check_update(config)
    _check_parts(config)


def _check_terms(config: "TrainingConfig") -> None:
    names = [term.name for term in config.regularizers]
    once = len(set(names)) == len(names)
    require(once, "regularizers", names, "each name once", "leave one out")
    zeros = "spectral" in names and config.init_D == "kaiming" and config.data.conditional
    labels = "init_D=kaiming starts label embeddings at 0, which have no spectral norm"
    require(
        not zeros, "regularizers: spectral", "spectral", "no spectral", f"{labels}: --init-D family"
    )


def _check_penalties(config: "TrainingConfig") -> None:
    for name, penalty in _penalties(config):
        field = f"regularizers: {name}"
        fits = OBJECTIVES[config.objective].classifier or not penalty.classifier
        classifiers = ", ".join(name for name, entry in OBJECTIVES.items() if entry.classifier)
        allowed = f"with the objectives {classifiers}"
        why = f"D is no classifier with --objective {config.objective}: leave one out"
        require(fits, field, name, allowed, why)
        encoder = config.network.encodes or not penalty.encodes
        why = f"the family {config.network.name!r} has no encoder: set --network vaegan"
        require(encoder, field, name, "with a family that has an encoder", why)
        whole = config.accumulate == 1 or not penalty.field
        why = "it is no sum over images: set --accumulate 1"
        require(whole, field, name, f"without accumulate={config.accumulate}", why)


def _check_schedules(config: "TrainingConfig") -> None:
    targets = [schedule.target for schedule in config.schedules]
    once = len(set(targets)) == len(targets)
    require(once, "schedules", targets, "each target once", "leave one out")
    constant = {"clip", "spectral"}  # what a constraint was installed with
    terms = [term.name for term in config.regularizers if term.name not in constant]
    fixed = config.augment.policy and not config.augment.target
    other = ["ema_kimg"] if config.average == "ema" else []
    other += ["augment.probability"] if fixed else []
    known = [*RATES, *other, *terms]
    for schedule in config.schedules:
        target = schedule.target
        remedy = "name a regulariser of this training, or a rate"
        require(target in known, "schedules", target, ", ".join(known), remedy)
        field = f"schedules: {target}"
        rate = target.endswith(".lr")
        beta = ".beta" in target
        require(not rate or schedule.end >= 0, field, schedule.end, "0 or more", "set its END")
        require(not beta or 0 <= schedule.end < 1, field, schedule.end, "[0, 1)", "set its END")
        require(rate or beta or schedule.end >= 0, field, schedule.end, "0 or more", "set its END")
        player = target.partition(".")[0]
        if beta:
            method = getattr(config, player).method
            remedy = f"{player}.method is sgd, which has no such beta"
            require(method != "sgd" or target.endswith("1"), field, target, "beta1", remedy)


def _check_augment(config: "TrainingConfig") -> None:
    augment = config.augment
    given = bool(augment.policy) or not augment.target
    remedy = "there is nothing to adapt: name an --augment.policy"
    require(given, "augment.target", augment.target, "0 without augment.policy", remedy)
    signed = OBJECTIVES[config.objective].signed or not augment.target
    names = ", ".join(name for name, entry in OBJECTIVES.items() if entry.signed)
    remedy = f"the sign of D says nothing with objective={config.objective}: set --augment.target 0"
    require(signed, "augment.target", augment.target, f"0, or the objectives {names}", remedy)


def _check_update(config: "TrainingConfig") -> None:
    plain = config.update == "alternating"
    for field in ("steps_D", "steps_G"):
        value = getattr(config, field)
        why = f"update={config.update} moves both at once: set --update alternating"
        require(plain or value == 1, field, value, "1", why)


def _check_parts(config: "TrainingConfig") -> None:
    size, parts = config.batch_size, config.accumulate
    fits = size % parts == 0 and size // parts >= 2
    allowed = f"a divisor of batch_size={size} that leaves 2 images or more"
    require(fits, "accumulate", parts, allowed, "change --accumulate or --batch-size")


def _penalties(config: "TrainingConfig") -> Iterator[tuple[str, Penalty]]:
    for term in config.regularizers:
        if term.name in PENALTIES:
            yield term.name, PENALTIES[term.name]
