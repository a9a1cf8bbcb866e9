"""Remedies: the one change that a rescue makes, each a function from a configuration to another.

A new remedy is one more entry of REMEDIES. Networks and optimisers stay the same, so that a
checkpoint from before the change still fits. A remedy changes what the training does from that
checkpoint on: a number that has a schedule is changed together with it, and a remedy that would
change nothing there doesn't apply.
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
from training.watchdog.scheduled import ahead, last, numbers, scaled, there, without

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


Cure = Callable[[TrainingConfig, Alarm, int], TrainingConfig]
"""(config, alarm, images shown at the checkpoint that the rescue goes back to) to the changed
configuration; raises ConfigError where the remedy doesn't apply."""

Weights = Mapping[str, float]
"""Weights of penalties by name."""


def raise_gamma(
    config: TrainingConfig, alarm: Alarm, cur_nimg: int, measured: Weights | None = None
) -> TrainingConfig:
    """Multiplies the weights of gradient penalties by FACTOR, or adds R1 where there is none.

    Gradient penalties damp the game (docs/watchdog.md).

    Args:
        config: of the training.
        alarm: not looked at.
        cur_nimg: images shown at the checkpoint, where the present weights are those that count.
        measured: weights that were found to damp it critically, taken where they are higher.
    """
    terms, measured = config.regularizers, measured or {}
    if not _has_gradient_penalty(config):
        return replace(
            config, regularizers=(*terms, Term(name="r1", weight=measured.get("r1", 1.0)))
        )
    for term in filter(_is_gradient_penalty, terms):
        config = _raised(config, term, cur_nimg, measured.get(term.name, 0.0))
    return config


def gradient_penalties(config: TrainingConfig) -> tuple[str, ...]:
    """The penalties whose weights raise_gamma raises: the training's, or r1 where it has none."""
    return tuple(t.name for t in config.regularizers if _is_gradient_penalty(t)) or ("r1",)


def _raised(config: TrainingConfig, term: Term, cur_nimg: int, found: float) -> TrainingConfig:
    """The weight as it was measured there, if that is higher, or FACTOR times what it is there.

    Its schedule keeps its shape. A weight that is 0 there has none to scale: it is held instead.
    """
    name, present = term.name, there(config, term.name, term.weight, cur_nimg)
    wanted = found if found > present else present * FACTOR
    if present:
        # Exact where nothing is scheduled, as the weight is then written as it was measured.
        weight = wanted if present == term.weight else term.weight * (wanted / present)
        schedules = scaled(config, name, wanted / present)
    else:
        weight = max(wanted or 1.0, last(config, name, term.weight, cur_nimg))
        schedules = without(config, name)
    terms = (replace(t, weight=weight) if t is term else t for t in config.regularizers)
    return replace(config, regularizers=tuple(terms), schedules=schedules)


def lower_lr(config: TrainingConfig, alarm: Alarm, cur_nimg: int) -> TrainingConfig:
    """Divides the lr of the alarm's player by FACTOR, or of both where no player is known."""
    return _slower(config, alarm.player or "GD")


def lower_D(config: TrainingConfig, alarm: Alarm, cur_nimg: int) -> TrainingConfig:
    """Divides D's lr by FACTOR."""
    return _slower(config, "D")


def lower_both(config: TrainingConfig, alarm: Alarm, cur_nimg: int) -> TrainingConfig:
    """Divides both players' lr by FACTOR."""
    return _slower(config, "GD")


def turn_ada_on(config: TrainingConfig, alarm: Alarm, cur_nimg: int) -> TrainingConfig:
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
    *,
    cur_nimg: int = 0,
) -> Remedy | None:
    """Chooses the remedy for an alarm.

    The detector's remedies are tried in their order, without those tried before. If all were tried,
    the last one is taken again. A remedy that gives no valid configuration, or leaves the training
    from the checkpoint on as it was, is left out.

    Args:
        config: the training's configuration now.
        alarm: what the detector reported.
        tried: remedies that were used for this failure before.
        measure: measures the weights that raise_gamma takes; only asked if it is its turn.
        cur_nimg: images shown at the checkpoint that the rescue goes back to.

    Returns:
        The remedy; None where none applies.
    """
    names = DETECTORS[alarm.failure].remedies
    for name in (*(name for name in names if name not in tried), *reversed(names)):
        try:
            if name == GAMMA and measure is not None:
                changed = raise_gamma(config, alarm, cur_nimg, measure())
            else:
                changed = REMEDIES[name](config, alarm, cur_nimg)
            _require_change(name, config, changed, cur_nimg)
        except ConfigError:
            continue
        return Remedy(name=name, config=changed, change=_difference(config, changed, cur_nimg))
    return None


def _require_change(name: str, old: TrainingConfig, new: TrainingConfig, cur_nimg: int) -> None:
    """Raises ConfigError for a remedy that does nothing from the checkpoint on."""
    if ahead(old, cur_nimg) == ahead(new, cur_nimg):
        raise ConfigError(f"{name} changes nothing from {cur_nimg / 1000:g} kimg on")


def _is_gradient_penalty(term: Term) -> bool:
    return term.name in PENALTIES and bool(PENALTIES[term.name].gradients)


def _has_gradient_penalty(config: TrainingConfig) -> bool:
    return any(map(_is_gradient_penalty, config.regularizers))


def _slower(config: TrainingConfig, players: str) -> TrainingConfig:
    for name in (f"optim_{player}" for player in players):
        optim = getattr(config, name)
        schedules = scaled(config, f"{name}.lr", 1 / FACTOR)
        config = replace(
            config, schedules=schedules, **{name: replace(optim, lr=optim.lr / FACTOR)}
        )
    return config


def _difference(old: TrainingConfig, new: TrainingConfig, cur_nimg: int) -> str:
    """Every option that differs, with its values before and after; also there, if scheduled."""
    names = [name for name in flatten(to_builtins(old)) if name != "network.family"]
    values = attrgetter(*names)
    options = [
        f"{flag(name)} {_text(was) or 'none'} -> {_text(now) or 'none'}"
        for name, was, now in zip(names, values(old), values(new), strict=True)
        if was != now
    ]
    moving = {each.target for each in (*old.schedules, *new.schedules)}
    before, after = (
        {name: there(each, name, start, cur_nimg) for name, start in numbers(each).items()}
        for each in (old, new)
    )
    effects = [
        f"{name} {before[name]:g} -> {after[name]:g}"
        for name in before
        if name in moving and before[name] != after.get(name, before[name])
    ]
    told = [f"so at {cur_nimg / 1000:g} kimg {', '.join(effects)}"] if effects else []
    return "; ".join([*options, *told])


def _text(value: Any) -> str:
    """A value as on the command line."""
    if isinstance(value, tuple):
        return " ".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
