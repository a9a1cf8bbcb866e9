"""Remedies: the one change that a rescue makes, each a function from a configuration to another.

A new remedy is one more entry of REMEDIES. Networks and optimisers stay the same, so that a
checkpoint from before the change still fits.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from training.config.training import TrainingConfig, flag, flatten, to_builtins
from training.errors import ConfigError
from training.game.penalties import PENALTIES
from training.game.regularizers import Term
from training.watchdog.detectors import DETECTORS, Alarm

FACTOR = 10.0
GAMMA = "raise-gamma"


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """The change that was chosen for an alarm."""

    name: str
    """Entry of REMEDIES."""
    config: TrainingConfig
    """The changed configuration."""
    change: str
    """The changed options with their values before and after, as on the command line."""


Cure = Callable[[TrainingConfig, Alarm], TrainingConfig]
"""Returns the changed configuration; raises ConfigError where the remedy doesn't apply."""

Weights = Mapping[str, float]
"""Weights of penalties by name."""


def raise_gamma(
    config: TrainingConfig, alarm: Alarm, measured: Weights | None = None
) -> TrainingConfig:
    """Multiplies the weights of gradient penalties by FACTOR, or adds R1 where there is none.

    Gradient penalties damp the game (docs/watchdog.md).

    Args:
        config: of the training.
        alarm: not looked at.
        measured: weights that were found to damp it critically, taken where they are higher.
    """
    terms, measured = config.regularizers, measured or {}
    if not _has_gradient_penalty(config):
        return replace(
            config, regularizers=(*terms, Term(name="r1", weight=measured.get("r1", 1.0)))
        )
    raised = (
        replace(term, weight=_raised(term, measured)) if _is_gradient_penalty(term) else term
        for term in terms
    )
    return replace(config, regularizers=tuple(raised))


def gradient_penalties(config: TrainingConfig) -> tuple[str, ...]:
    """The penalties whose weights raise_gamma raises: the training's, or r1 where it has none."""
    return tuple(t.name for t in config.regularizers if _is_gradient_penalty(t)) or ("r1",)


def _raised(term: Term, measured: Weights) -> float:
    found = measured.get(term.name, 0.0)
    if found > term.weight:
        return found
    return term.weight * FACTOR if term.weight else 1.0


def lower_lr(config: TrainingConfig, alarm: Alarm) -> TrainingConfig:
    """Divides the lr of the alarm's player by FACTOR, or of both where no player is known."""
    return _slower(config, alarm.player or "GD")


def lower_D(config: TrainingConfig, alarm: Alarm) -> TrainingConfig:
    """Divides D's lr by FACTOR."""
    return _slower(config, "D")


def lower_both(config: TrainingConfig, alarm: Alarm) -> TrainingConfig:
    """Divides both players' lr by FACTOR."""
    return _slower(config, "GD")


def turn_ada_on(config: TrainingConfig, alarm: Alarm) -> TrainingConfig:
    """Turns on ADA with its paper's target; its probability can reach 1 in a tenth of the training.

    Raises:
        ConfigError: it is on already, the objective has no r_t, or D has no gradient penalty. ADA
            was made for use with R1: a D that wins only because it is steep needs a penalty.
    """
    if config.augment.target:
        raise ConfigError("adaptive augmentation is on already")
    if not _has_gradient_penalty(config):
        raise ConfigError("D has no gradient penalty yet")
    augment = replace(
        config.augment,
        policy=config.augment.policy or ("ada",),
        target=0.6,
        speed_kimg=min(config.augment.speed_kimg, config.total_kimg / 10),
    )
    return replace(config, augment=augment)


REMEDIES: dict[str, Cure] = {
    GAMMA: raise_gamma,
    "lower-lr": lower_lr,
    "lower-lr-of-D": lower_D,
    "lower-lr-of-both": lower_both,
    "turn-ada-on": turn_ada_on,
}


def choose(
    config: TrainingConfig,
    alarm: Alarm,
    tried: Collection[str],
    measure: Callable[[], Weights] | None = None,
) -> Remedy | None:
    """Chooses the remedy for an alarm.

    The detector's remedies are tried in their order, without those tried before. If all were tried,
    the last one is taken again. A remedy that gives no valid configuration is left out.

    Args:
        config: the training's configuration now.
        alarm: what the detector reported.
        tried: remedies that were used for this failure before.
        measure: measures the weights that raise_gamma takes; only asked if it is its turn.

    Returns:
        The remedy; None where none applies.
    """
    names = DETECTORS[alarm.failure].remedies
    for name in (*(name for name in names if name not in tried), *reversed(names)):
        try:
            if name == GAMMA and measure is not None:
                changed = raise_gamma(config, alarm, measure())
            else:
                changed = REMEDIES[name](config, alarm)
        except ConfigError:
            continue
        return Remedy(name=name, config=changed, change=_difference(config, changed))
    return None


def _is_gradient_penalty(term: Term) -> bool:
    return term.name in PENALTIES and bool(PENALTIES[term.name].gradients)


def _has_gradient_penalty(config: TrainingConfig) -> bool:
    return any(map(_is_gradient_penalty, config.regularizers))


def _slower(config: TrainingConfig, players: str) -> TrainingConfig:
    for name in (f"optim_{player}" for player in players):
        optim = getattr(config, name)
        config = replace(config, **{name: replace(optim, lr=optim.lr / FACTOR)})
    return config


def _difference(old: TrainingConfig, new: TrainingConfig) -> str:
    """Every option that differs, with its values before and after."""
    names = [name for name in flatten(to_builtins(old)) if name != "network.family"]
    values = attrgetter(*names)
    return "; ".join(
        f"{flag(name)} {_text(was) or 'none'} -> {_text(now)}"
        for name, was, now in zip(names, values(old), values(new), strict=True)
        if was != now
    )


def _text(value: Any) -> str:
    """A value as on the command line."""
    if isinstance(value, tuple):
        return " ".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
