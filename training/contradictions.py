"""Options that are fine alone and contradict each other: refused before a training starts.

Each rule names both options, their values and what to change. What one option may be is its own
class's to say. An option that nothing looks at is refused only where it was asked for: recipes have
defaults for what they don't use. What is computed otherwise than its name promises is said
(`notes`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from training.errors import require
from training.objectives import OBJECTIVES
from training.regularizers import PENALTIES, Penalty

if TYPE_CHECKING:
    from training.config import TrainingConfig

RATES = tuple(f"optim_{player}.{rate}" for player in "GD" for rate in ("lr", "beta1", "beta2"))


@dataclass(frozen=True, kw_only=True)
class Rule:
    """When an option counts."""

    option: str
    """As on the command line, with underscores."""
    counts: Callable[["TrainingConfig"], bool]
    """True where something looks at it."""
    needs: str
    """What would make it count."""


RULES = (
    Rule(
        option="unrolled_lr",
        counts=lambda config: config.unrolled_steps > 0,
        needs="--unrolled-steps above 0",
    ),
    Rule(
        option="lookahead_alpha",
        counts=lambda config: config.lookahead_steps > 0,
        needs="--lookahead-steps above 0",
    ),
    Rule(option="ema_kimg", counts=lambda config: config.average == "ema", needs="--average ema"),
    Rule(
        option="ema_rampup",
        counts=lambda config: (
            config.average == "ema"
            and (config.ema_kimg > 0 or any(s.target == "ema_kimg" for s in config.schedules))
        ),
        needs="--average ema with --ema-kimg above 0",
    ),
    Rule(
        option="augment.probability",
        counts=lambda config: bool(config.augment.policy),
        needs="an --augment.policy",
    ),
    Rule(
        option="augment.speed_kimg",
        counts=lambda config: config.augment.target > 0,
        needs="--augment.target above 0",
    ),
    Rule(
        option="watchdog.max_rescues",
        counts=lambda config: config.watchdog.action == "rescue",
        needs="--watchdog.action rescue",
    ),
    Rule(
        option="watchdog.ignore",
        counts=lambda config: config.watchdog.is_on,
        needs="another --watchdog.action than off",
    ),
)


def check_idle(config: "TrainingConfig", default: "TrainingConfig") -> None:
    """Raises ConfigError for an option that was changed and that nothing looks at.

    default: what the recipe, or the run that is resumed, has.
    """
    for rule in RULES:
        value = attrgetter(rule.option)(config)
        fits = rule.counts(config) or value == attrgetter(rule.option)(default)
        remedy = "nothing looks at it now: add that, or leave it out"
        require(fits, rule.option, value, f"with {rule.needs}", remedy)


def notes(config: "TrainingConfig") -> list[str]:
    """What is computed otherwise than an option's name promises, a line each."""
    lines = []
    twice = [name for name, penalty in _penalties(config) if penalty.gradients or penalty.field]
    both = [name for name, penalty in _penalties(config) if penalty.field]
    if config.compute.compile and twice:
        who = "neither player is" if both else "D is not"
        why = f"{', '.join(twice)} differentiates it twice, which compiled code can't be"
        lines.append(f"compute.compile: {who} compiled, as {why}")
    if config.compute.compile and config.unrolled_steps:
        lines.append("compute.compile: D unrolled, as G sees it, is not compiled")
    single = [name for name, penalty in _penalties(config) if penalty.gradients]
    if single and getattr(config.network, "d_norm", "none") == "batch":
        lines.append(
            f"network.d_norm is batch: D's logits depend on the whole batch, so what "
            f"{', '.join(single)} penalises is its gradient by a batch, not by each image; the "
            "papers have none"
        )
    return lines


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
    both = "each weight's size is spectral's already: leave one out"
    contrary = {"clip", "spectral"} <= set(names)
    require(not contrary, "regularizers: clip", "clip", "without spectral", both)
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
        whole = config.accumulate == 1 or not penalty.whole_batch
        why = "it is no mean over images: set --accumulate 1"
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
        for term in (term for term in config.regularizers if term.name == target):
            term.require_bounded(schedule.end, field, "set its END")
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
    given = augment.probability > 0 or not augment.target
    remedy = f"it is the most that augment.target={augment.target:g} can come to: leave it out"
    require(given, "augment.probability", augment.probability, "above 0", remedy)
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
