"""Remedies: the one thing that a rescue changes, each a function from configuration to another.

A new one is one more entry. Knows no weights: networks and optimisers stay what they are, so a
checkpoint of before the change still fits.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from training.config import TrainingConfig
from training.errors import ConfigError
from training.optimizers import OptimizerConfig
from training.stability.signs import SIGNS, Alarm
from training.terms import Term

FACTOR = 10.0
_GRADIENT_PENALTIES = ("r1", "r2", "wgan-gp", "dragan", "zero-gp")


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """A change that was decided on."""

    name: str
    """Entry of REMEDIES."""
    config: TrainingConfig
    """What the training goes on with."""
    change: str
    """What changed: option, before and after."""


Cure = Callable[[TrainingConfig, Alarm], TrainingConfig]


def raise_gamma(config: TrainingConfig, alarm: Alarm) -> TrainingConfig:
    """Gradient penalties times FACTOR, or R1 where there is none: it damps (docs/watchdog.md)."""
    terms = config.regularizers
    if not _is_held(config):
        return replace(config, regularizers=(*terms, Term(name="r1", weight=1.0)))
    raised = (
        replace(term, weight=term.weight * FACTOR if term.weight else 1.0)
        if term.name in _GRADIENT_PENALTIES
        else term
        for term in terms
    )
    return replace(config, regularizers=tuple(raised))


def lower_lr(config: TrainingConfig, alarm: Alarm) -> TrainingConfig:
    """The lr of the player concerned over FACTOR; of both where that isn't known."""
    if alarm.player is None:
        return lower_both(config, alarm)
    if alarm.player == "G":
        return replace(config, optim_G=_slower(config.optim_G))
    return replace(config, optim_D=_slower(config.optim_D))


def lower_D(config: TrainingConfig, alarm: Alarm) -> TrainingConfig:
    """D's lr over FACTOR."""
    return replace(config, optim_D=_slower(config.optim_D))


def lower_both(config: TrainingConfig, alarm: Alarm) -> TrainingConfig:
    """Both lr over FACTOR."""
    return replace(config, optim_G=_slower(config.optim_G), optim_D=_slower(config.optim_D))


def turn_ada_on(config: TrainingConfig, alarm: Alarm) -> TrainingConfig:
    """Adaptive augmentation at ADA's target, able to come on within a tenth of the training.

    Raises:
        ConfigError: it is on already, the objective has no r_t, or no gradient penalty holds D:
            a D that wins by steepness alone is no case for ADA, which was made beside R1.
    """
    if config.augment.target:
        raise ConfigError("adaptive augmentation is on already")
    if not _is_held(config):
        raise ConfigError("D has no gradient penalty yet")
    augment = replace(
        config.augment,
        policy=config.augment.policy or ("ada",),
        target=0.6,
        speed_kimg=min(config.augment.speed_kimg, config.total_kimg / 10),
    )
    return replace(config, augment=augment)


REMEDIES: dict[str, Cure] = {
    "raise-gamma": raise_gamma,
    "lower-lr": lower_lr,
    "lower-lr-of-D": lower_D,
    "lower-lr-of-both": lower_both,
    "turn-ada-on": turn_ada_on,
}


def choose(config: TrainingConfig, alarm: Alarm, tried: Collection[str]) -> Remedy | None:
    """The remedy for an alarm. tried: those that this failure was treated with already.

    The sign's remedies are taken in their order, one that makes no valid configuration is passed
    over, and where all were tried the last is taken again. None if nothing in it can be done.
    """
    names = SIGNS[alarm.failure].remedies
    for name in (*(name for name in names if name not in tried), *reversed(names)):
        try:
            changed = REMEDIES[name](config, alarm)
        except ConfigError:
            continue
        return Remedy(name=name, config=changed, change=_difference(config, changed))
    return None


def _is_held(config: TrainingConfig) -> bool:
    return any(term.name in _GRADIENT_PENALTIES for term in config.regularizers)


def _slower(optim: OptimizerConfig) -> OptimizerConfig:
    return replace(optim, lr=optim.lr / FACTOR)


def _difference(old: TrainingConfig, new: TrainingConfig) -> str:
    """Options that differ, as on the command line."""
    return "; ".join(
        f"{option} {was or 'none'} -> {now}"
        for (option, was), (_, now) in zip(_words(old), _words(new), strict=True)
        if was != now
    )


def _words(config: TrainingConfig) -> list[tuple[str, str]]:
    augment = config.augment
    return [
        ("--regularizers", " ".join(map(str, config.regularizers))),
        ("--optim-G.lr", f"{config.optim_G.lr:g}"),
        ("--optim-D.lr", f"{config.optim_D.lr:g}"),
        ("--augment.policy", " ".join(augment.policy)),
        ("--augment.target", f"{augment.target:g}"),
        ("--augment.speed-kimg", f"{augment.speed_kimg:g}"),
    ]
