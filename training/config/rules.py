"""Rules for options that are valid alone and contradict each other.

They are refused before a training starts; the message names both options, their values and what to
change. The rules know no entry of a registry by name: entries say what the rules need. What one
option may be is checked by its own class. An option that nothing uses is refused only where it was
asked for, since recipes have defaults for what they don't use.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter

from models.networks import FAMILIES
from training.config.options import TrainingOptions
from training.data.sources import DATASETS
from training.errors import require
from training.game.objectives import OBJECTIVES
from training.game.penalties import PENALTIES, Penalty
from training.game.regularizers import lazy_intervals
from training.game.updates import UPDATES
from training.optim.constraints import CONSTRAINTS
from training.optim.initialization import INITIALIZATIONS
from training.optim.optimizers import METHODS

NO_MEAN = "it is no mean over images, so a batch's is not the mean of its parts'"
RATES = tuple(f"optim_{player}.{rate}" for player in "GD" for rate in ("lr", "beta1", "beta2"))

_UNINITIALISED = " or ".join(name for name, cls in FAMILIES.items() if not cls.initialises)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A condition under which an option is used."""

    option: str
    """Its name on the command line, with underscores."""
    counts: Callable[[TrainingOptions], bool]
    """True where something uses it."""
    needs: str
    """The options with which it would be used."""


RULES = (
    Rule(
        option="init_D",
        counts=lambda config: (
            not config.network.initialises or not INITIALIZATIONS[config.init_D].draws
        ),
        needs=f"--network {_UNINITIALISED}, as the others have an initialisation of their own",
    ),
    Rule(
        option="extrapolation",
        counts=lambda config: UPDATES[config.update].looks_ahead,
        needs="--update alternating-extrapolation",
    ),
    Rule(
        option="unrolled_lr",
        counts=lambda config: config.unrolled_steps > 0,
        needs="--unrolled-steps above 0",
    ),
    Rule(
        option="unrolled_adam",
        counts=lambda config: config.unrolled_steps > 0,
        needs="--unrolled-steps above 0",
    ),
    Rule(
        option="lazy_steps",
        counts=lambda config: any(_lazy_intervals(config).values()),
        needs="a penalty that has an interval, as --regularizers r1=0.5/16",
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
        option="augment.interval",
        counts=lambda config: config.augment.target > 0,
        needs="--augment.target above 0",
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


def check_idle(config: TrainingOptions, default: TrainingOptions) -> None:
    """Raises ConfigError for an option that was changed and that nothing uses.

    default: the options of the recipe, or of the run that is resumed.
    """
    for rule in RULES:
        value = attrgetter(rule.option)(config)
        fits = rule.counts(config) or value == attrgetter(rule.option)(default)
        remedy = "nothing looks at it now: add that, or leave it out"
        require(fits, rule.option, value, f"with {rule.needs}", remedy)


def notes(config: TrainingOptions) -> list[str]:
    """Returns a line for each option whose effect is not what its name promises."""
    lines = []
    twice = [
        name for name, penalty in _penalties(config) if penalty.gradients or penalty.vector_field
    ]
    both = [name for name, penalty in _penalties(config) if penalty.vector_field]
    if config.compute.compile and twice:
        who = "neither player is" if both else "D is not"
        why = f"{', '.join(twice)} differentiates it twice, which compiled code can't be"
        lines.append(f"compute.compile: {who} compiled, as {why}")
    of_G = [name for name, penalty in _penalties(config) if penalty.maps]
    if config.compute.compile and of_G:
        lines.append(
            f"compute.compile: G is not compiled, as {', '.join(of_G)} differentiates it twice"
        )
    if config.compute.compile and config.unrolled_steps:
        lines.append("compute.compile: D unrolled, as G sees it, is not compiled")
    single = [name for name, penalty in _penalties(config) if penalty.gradients]
    if single and config.network.batch_norm_in_D:
        lines.append(
            f"network: D has batch norm, so its logits depend on the whole batch, and what "
            f"{', '.join(single)} penalises is its gradient by a batch, not by each image; the "
            "papers have none"
        )
    return lines


def check(config: TrainingOptions) -> None:
    """Raises ConfigError where two options contradict each other."""
    _check_points(config)
    _check_objective(config)
    _check_terms(config)
    _check_penalties(config)
    _check_schedules(config)
    _check_augment(config)
    _check_update(config)
    _check_parts(config)
    _check_unrolled(config)


def _check_points(config: TrainingOptions) -> None:
    is_points, field = DATASETS[config.data.dataset].points, "network"
    allowed = "a family of points" if is_points else "a family of images"
    names = " or ".join(n for n, cls in FAMILIES.items() if cls.points == is_points)
    remedy = f"the data is {config.data.dataset}: set --network {names}"
    require(config.network.points == is_points, field, config.network.name, allowed, remedy)
    if is_points:
        for option, value in (
            ("augment.policy", config.augment.policy),
            ("corruption", config.corruption),
        ):
            remedy = "it changes images: leave it out"
            require(not value, option, value, f"none with {config.data.dataset}", remedy)


def _check_objective(config: TrainingOptions) -> None:
    name = config.objective
    whole = config.accumulate == 1 or not OBJECTIVES[name].whole_batch
    allowed, remedy = f"without accumulate={config.accumulate}", f"{NO_MEAN}: set --accumulate 1"
    require(whole, "objective", name, allowed, remedy)


def _check_terms(config: TrainingOptions) -> None:
    names = [term.name for term in config.regularizers]
    once = len(set(names)) == len(names)
    require(once, "regularizers", names, "each name once", "leave one out")
    constraints = [name for name in names if name in CONSTRAINTS]
    drawn = not config.network.initialises and INITIALIZATIONS[config.init_D].zero_embeddings
    zeros = drawn and config.data.conditional
    for name in (name for name in constraints if CONSTRAINTS[name].normalizes):
        for other in (other for other in constraints if other != name):
            why = f"each weight's size is {name}'s already: leave one out"
            require(False, f"regularizers: {other}", other, f"without {name}", why)
        closed, family = config.network.closed_branches, config.network.name
        why = "layers of its D start at 0, which have no norm: leave it out, or take r1 and r2"
        require(not closed, f"regularizers: {name}", name, f"without --network {family}", why)
        why = "that starts label embeddings at 0, which have no norm: set --init-D family"
        require(not zeros, f"regularizers: {name}", name, f"without init_D={config.init_D}", why)


def _check_penalties(config: TrainingOptions) -> None:
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
        maps = config.network.maps or not penalty.maps
        families = " or ".join(name for name, cls in FAMILIES.items() if cls.maps)
        why = f"the family {config.network.name!r} has no mapping network: set --network {families}"
        require(maps, field, name, "with a family that has a mapping network", why)
        undamaged = not (config.corruption and penalty.undamaged)
        why = "it compares pixels, and those of damaged images are missing: take reconstruction"
        require(undamaged, field, name, "without --corruption", why)
        whole = config.accumulate == 1 or not penalty.whole_batch
        why = f"{NO_MEAN}: set --accumulate 1"
        require(whole, field, name, f"without accumulate={config.accumulate}", why)


def _check_schedules(config: TrainingOptions) -> None:
    targets = [schedule.target for schedule in config.schedules]
    once = len(set(targets)) == len(targets)
    require(once, "schedules", targets, "each target once", "leave one out")
    # A constraint's weight may be built into the network, so it stays what it was.
    terms = [term.name for term in config.regularizers if term.name not in CONSTRAINTS]
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
        require(rate or beta or schedule.end >= 0, field, schedule.end, "0 or more", "set its END")
        for term in (term for term in config.regularizers if term.name == target):
            term.require_bounded(schedule.end, field, "set its END")
        player = target.partition(".")[0]
        if beta:
            method = getattr(config, player).method
            remedy = f"{player}.method is {method}, which has no such beta"
            has = METHODS[method].second_moment or target.endswith("1")
            require(has, field, target, "beta1", remedy)
            least = -1 if METHODS[method].negative and target.endswith("1") else 0
            fits = least < schedule.end < 1 or schedule.end == 0
            allowed = "(-1, 1)" if least else "[0, 1)"
            require(fits, field, schedule.end, allowed, "set its END")


def _check_augment(config: TrainingOptions) -> None:
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


def _check_update(config: TrainingOptions) -> None:
    takes_turns = UPDATES[config.update].takes_turns
    names = " or ".join(name for name, update in UPDATES.items() if update.takes_turns)
    for field in ("steps_D", "steps_G"):
        value = getattr(config, field)
        why = f"update={config.update} has one step of each a round: set --update {names}"
        require(takes_turns or value == 1, field, value, "1", why)
    why = f"update={config.update} moves both on one batch: set --update {names}"
    allowed = takes_turns or not config.fresh_batch_G
    require(allowed, "fresh_batch_G", config.fresh_batch_G, "False", why)
    if config.lazy_steps:
        _check_lazy_steps(config)


def _check_lazy_steps(config: TrainingOptions) -> None:
    names = " or ".join(name for name, update in UPDATES.items() if update.takes_turns)
    why = f"update={config.update} has one step of each a round: set --update {names}"
    require(UPDATES[config.update].takes_turns, "lazy_steps", True, "False", why)
    why = f"unrolled_steps={config.unrolled_steps} are of D's whole loss: leave one out"
    require(not config.unrolled_steps, "lazy_steps", True, "False", why)
    for player, intervals in _lazy_intervals(config).items():
        told = " and ".join(map(str, intervals))
        why = f"the penalties of {player} take one step together: give them one interval"
        require(len(intervals) <= 1, "lazy_steps", told, f"one interval for {player}", why)


def _check_unrolled(config: TrainingOptions) -> None:
    method = config.optim_D.method
    fits = METHODS[method].adam or not config.unrolled_adam
    names = " or ".join(name for name, entry in METHODS.items() if entry.adam)
    allowed, remedy = f"False with optim_D.method={method}", f"set --optim-D.method {names}"
    require(fits, "unrolled_adam", config.unrolled_adam, allowed, remedy)


def _check_parts(config: TrainingOptions) -> None:
    size, parts = config.batch_size, config.accumulate
    fits = size % parts == 0 and size // parts >= 2
    allowed = f"a divisor of batch_size={size} that leaves 2 images or more"
    require(fits, "accumulate", parts, allowed, "change --accumulate or --batch-size")
    _check_packing(config)


def _check_packing(config: TrainingOptions) -> None:
    num, size = config.packing, config.batch_size
    if num == 1:
        return
    fits = size % num == 0 and size // num >= 2
    allowed = f"a divisor of batch_size={size} that leaves 2 packs or more"
    require(fits, "packing", num, allowed, "change --packing or --batch-size")
    whole = config.accumulate == 1
    why = "packs are formed from the whole batch: set --accumulate 1"
    require(whole, "packing", num, f"1 with accumulate={config.accumulate}", why)
    why = "a pack has no single class: set --data.no-conditional"
    require(not config.data.conditional, "packing", num, "1 with data.conditional", why)
    why = "its encoder compares single images in D: choose another --network"
    require(not config.network.encodes, "packing", num, f"1 with {config.network.name}", why)


def _lazy_intervals(config: TrainingOptions) -> dict[str, list[int]]:
    return {player: lazy_intervals(config.regularizers, player) for player in "GD"}


def _penalties(config: TrainingOptions) -> Iterator[tuple[str, Penalty]]:
    for term in config.regularizers:
        if term.name in PENALTIES:
            yield term.name, PENALTIES[term.name]
