"""What makes a training what it is: frozen dataclasses, checked when they are made.

Two equal configurations on one machine give the same weights. Where files go and which device
computes is not in here (`training.command`). Knows no recipe.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
import tyro

from models.networks import FAMILIES, Family, ImageShape
from training.augment import AugmentConfig
from training.compute import ComputeConfig
from training.contradictions import check
from training.corruption import Corruption
from training.data import DataConfig
from training.errors import ConfigError, require, require_number
from training.initialization import INITIALIZATIONS
from training.objectives import OBJECTIVES
from training.optimizers import OptimizerConfig
from training.schedules import Schedule
from training.stability.settings import WatchdogConfig
from training.terms import Term
from training.updates import UPDATES

_TERM = tyro.constructors.PrimitiveConstructorSpec[Term](
    nargs=1,
    metavar="NAME=WEIGHT[/EVERY]",
    instance_from_str=lambda words: Term.parse(words[0]),
    is_instance=lambda value: isinstance(value, Term),
    str_from_instance=lambda term: [str(term)],
)
_SCHEDULE = tyro.constructors.PrimitiveConstructorSpec[Schedule](
    nargs=1,
    metavar="TARGET=END@KIMG[:SHAPE]",
    instance_from_str=lambda words: Schedule.parse(words[0]),
    is_instance=lambda value: isinstance(value, Schedule),
    str_from_instance=lambda schedule: [str(schedule)],
)
_CORRUPTION = tyro.constructors.PrimitiveConstructorSpec[Corruption](
    nargs=1,
    metavar="NAME=STRENGTH",
    instance_from_str=lambda words: Corruption.parse(words[0]),
    is_instance=lambda value: isinstance(value, Corruption),
    str_from_instance=lambda corruption: [str(corruption)],
)
_AUGMENT = AugmentConfig()
_OPTIMIZER = OptimizerConfig()
_COMPUTE = ComputeConfig()
_WATCHDOG = WatchdogConfig()


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """One training, whole."""

    recipe: Annotated[str, tyro.conf.Suppress]
    """The recipe that it started from."""
    data: DataConfig
    """Images to learn."""
    network: Family
    """Both players."""
    init_D: str = "family"
    """Initial weights of the discriminator: an entry of training/initialization.py, see --list."""
    frozen_D: int = 0
    """Layers of D, counted from the image, whose weights don't move: for --init-from."""
    objective: str = "non-saturating"
    """What the players minimise: an entry of training/objectives.py, see --list."""
    regularizers: tuple[Annotated[Term, _TERM], ...] = ()
    """Penalties, constraints and views, each with its weight and, if lazy, its interval."""
    corruption: tuple[Annotated[Corruption, _CORRUPTION], ...] = ()
    """What the data suffered from, in this order: G's images suffer it too before D sees them, so
    that G learns what was there before; see --list."""
    schedules: tuple[Annotated[Schedule, _SCHEDULE], ...] = ()
    """What changes in the course of the training: optim_G.lr, .beta1, .beta2, optim_D likewise,
    ema_kimg, augment.probability, or a regulariser's name; each goes from its value to END within
    KIMG, linear or cosine."""
    augment: AugmentConfig = _AUGMENT
    """What D sees changed at random, on real and generated images alike."""
    optim_G: OptimizerConfig = _OPTIMIZER
    """Steps of the generator."""
    optim_D: OptimizerConfig = _OPTIMIZER
    """Steps of the discriminator."""
    update: str = "alternating"
    """Who moves when: an entry of training/updates.py, see --list."""
    steps_D: int = 1
    """Steps of D in a round, each with images of its own."""
    steps_G: int = 1
    """Steps of G in a round."""
    unrolled_steps: int = 0
    """Gradient steps of D that G looks ahead, and differentiates through (Metz et al. 2017)."""
    unrolled_lr: float = 0.1
    """Learning rate of these steps, which are plain gradient descent."""
    lookahead_steps: int = 0
    """Rounds after which both players go back towards where they were; 0 for never."""
    lookahead_alpha: float = 0.5
    """How far they get of the way that they had gone, in (0, 1]."""
    batch_size: int = 64
    """Images per step of each player, over all processes."""
    accumulate: int = 1
    """Parts that a batch is computed in, one after the other, to save memory."""
    total_kimg: float
    """Length of the training, in thousands of real images shown."""
    average: Literal["ema", "uniform"] = "ema"
    """What is exported: an exponential average of G's weights, or the mean of all of them."""
    ema_kimg: float = 10.0
    """Half-life of the averaged generator, in thousands of images; 0 exports the last iterate."""
    ema_rampup: float = 0.05
    """Bound of the half-life early on, as a share of the images seen so far; 0 for no bound."""
    tick_kimg: float
    """Thousands of images from one line of metrics, sample grid and checkpoint to the next."""
    seed: int = 0
    """Of every random draw of the training, 0 or more."""
    compute: ComputeConfig = _COMPUTE
    """How it is computed."""
    watchdog: WatchdogConfig = _WATCHDOG
    """What happens when the training shows the signs of a known failure."""

    def __post_init__(self) -> None:
        """Refuses options that make no training, alone or together."""
        registries: dict[str, Collection[str]] = {
            "init_D": INITIALIZATIONS,
            "objective": OBJECTIVES,
            "update": UPDATES,
        }
        for field, registry in registries.items():
            name = getattr(self, field)
            require(name in registry, field, name, ", ".join(registry), "see --list")
        more = "set --batch-size to 2 or more: batch norm needs two images"
        require(self.batch_size >= 2, "batch_size", self.batch_size, "2 or more", more)
        for field in ("total_kimg", "tick_kimg", "unrolled_lr"):
            require_number(field, getattr(self, field), above=0)
        for field in ("ema_kimg", "ema_rampup"):
            value = getattr(self, field)
            nonnegative = math.isfinite(value) and value >= 0
            require(nonnegative, field, value, "0 or more", f"set {flag(field)}")
        for field in ("steps_D", "steps_G", "accumulate"):
            value = getattr(self, field)
            require(value >= 1, field, value, "1 or more", f"set {flag(field)}")
        for field in ("frozen_D", "unrolled_steps", "lookahead_steps"):
            value = getattr(self, field)
            require(value >= 0, field, value, "0 or more", f"set {flag(field)}")
        alpha = self.lookahead_alpha
        require(0 < alpha <= 1, "lookahead_alpha", alpha, "(0, 1]", "set --lookahead-alpha")
        require(0 <= self.seed < 2**63, "seed", self.seed, "0 .. 2**63 - 1", "set --seed")
        averages = ("ema", "uniform")
        require(self.average in averages, "average", self.average, ", ".join(averages), "--average")
        self.optim_G.check("optim_G")
        self.optim_D.check("optim_D")
        check(self)

    def check_shape(self, shape: ImageShape) -> None:
        """Raises ConfigError where the network can't make the data's shape."""
        try:
            self.network.check(shape)
        except ValueError as error:
            raise ConfigError(str(error)) from error

    @property
    def round_nimg(self) -> int:
        """Images that D is shown in a round."""
        return self.batch_size * self.steps_D

    @property
    def total_nimg(self) -> int:
        """Images shown in the whole training: whole rounds that make up total_kimg."""
        return math.ceil(round(self.total_kimg * 1000) / self.round_nimg) * self.round_nimg

    @property
    def tick_nimg(self) -> int:
        """Images from tick to tick, at least one round."""
        return max(round(self.tick_kimg * 1000), self.round_nimg)


def flag(field: str) -> str:
    """The field's option on the command line."""
    return f"--{field.replace('_', '-')}"


def to_builtins(config: TrainingConfig) -> dict[str, Any]:
    """The configuration as plain JSON types; the network names its family."""
    values: dict[str, Any] = msgspec.to_builtins(config, enc_hook=_encode)
    values["network"] = {"family": config.network.name, **values["network"]}
    return values


def from_builtins(values: dict[str, Any], where: str) -> TrainingConfig:
    """The inverse of to_builtins.

    Args:
        values: as read from JSON.
        where: the file's path, for messages.

    Raises:
        ConfigError: a field is missing, unknown or not allowed.
    """
    hints = get_type_hints(TrainingConfig, include_extras=True)
    if unknown := values.keys() - hints.keys():
        raise ConfigError(f"{where}: {', '.join(sorted(unknown))} is not known to this release")
    try:
        network = dict(values["network"])
        hints["network"] = FAMILIES[network.pop("family")]
        given = {**values, "network": network}
        fields = {
            name: msgspec.convert(value, hints[name], dec_hook=_decode)
            for name, value in given.items()
        }
        return TrainingConfig(**fields)
    except (KeyError, TypeError, ValueError, msgspec.ValidationError) as error:
        raise ConfigError(f"{where}: {error}; it was written by another release") from error


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options as {"network.ngf": 64, ...}, named as on the command line."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _encode(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(type(value))


def _decode(kind: type[Any], value: object) -> object:
    if issubclass(kind, Path) and isinstance(value, str):
        return Path(value)
    raise NotImplementedError(kind)
