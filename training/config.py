"""What makes a training what it is: frozen dataclasses, checked when they are made.

Two equal configurations on one machine give the same weights. Where files go and which device
computes is not in here (`training.command`). Knows no recipe.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import msgspec
import tyro

from models.networks import FAMILIES, Family, ImageShape
from training.data import DataConfig
from training.errors import ConfigError
from training.initialization import INITIALIZATIONS
from training.objectives import OBJECTIVES
from training.regularizers import PENALTIES


def require(condition: bool, field: str, value: object, allowed: str, remedy: str) -> None:
    """Raises ConfigError, naming all four, unless the condition holds."""
    if not condition:
        raise ConfigError(f"{field} is {value!r}, allowed: {allowed}; {remedy}")


def require_number(field: str, value: float, *, above: float) -> None:
    """Raises ConfigError unless the value is finite and greater than `above`."""
    allowed = f"a finite number above {above:g}"
    require(math.isfinite(value) and value > above, field, value, allowed, "choose another value")


@dataclass(frozen=True, kw_only=True)
class Term:
    """One regulariser in a recipe, written NAME=WEIGHT or NAME=WEIGHT/EVERY."""

    name: str
    """Entry of `training.regularizers.PENALTIES`."""
    weight: float
    """Factor of the penalty; gamma for r1 and r2."""
    interval: int = 1
    """Steps from one application to the next; the weight is multiplied by it."""

    def __post_init__(self) -> None:
        """Refuses unknown names, negative weights and intervals below 1."""
        field = f"regularizers: {self.name}"
        known = ", ".join(PENALTIES)
        require(self.name in PENALTIES, "regularizers", self.name, known, "see --list")
        nonnegative = math.isfinite(self.weight) and self.weight >= 0
        require(nonnegative, field, self.weight, "a weight of 0 or more", "write r1=0.5")
        whole = self.interval >= 1
        require(whole, field, self.interval, "an interval of 1 step or more", "write r1=0.5/16")

    def __str__(self) -> str:
        every = f"/{self.interval}" if self.interval != 1 else ""
        return f"{self.name}={self.weight:g}{every}"

    @classmethod
    def parse(cls, text: str) -> "Term":
        """The inverse of str.

        Raises:
            ConfigError: the text is no term.
        """
        name, _, rest = text.partition("=")
        weight, _, interval = rest.partition("/")
        try:
            numbers = float(weight), int(interval or 1)
        except ValueError:
            message = f"regularizers is {text!r}, allowed: NAME=WEIGHT or NAME=WEIGHT/EVERY"
            raise ConfigError(f"{message}; for instance r1=0.5") from None
        return cls(name=name, weight=numbers[0], interval=numbers[1])


_TERM = tyro.constructors.PrimitiveConstructorSpec[Term](
    nargs=1,
    metavar="NAME=WEIGHT[/EVERY]",
    instance_from_str=lambda words: Term.parse(words[0]),
    is_instance=lambda value: isinstance(value, Term),
    str_from_instance=lambda term: [str(term)],
)


@dataclass(frozen=True, kw_only=True)
class AdamConfig:
    """Adam (Kingma and Ba 2015) for one player."""

    lr: float = 2e-4
    """Learning rate per step."""
    betas: tuple[float, float] = (0.5, 0.999)
    """Decay per step of the gradient's first and second moment, in [0, 1)."""
    eps: float = 1e-8
    """Added to the root of the second moment."""

    def __post_init__(self) -> None:
        """Refuses what Adam can't step with."""
        remedy = "set --optim-G.lr, --optim-D.lr"
        require(math.isfinite(self.lr) and self.lr > 0, "lr", self.lr, "above 0", remedy)
        require_number("eps", self.eps, above=0)
        in_range = all(0 <= beta < 1 for beta in self.betas)
        require(in_range, "betas", self.betas, "two numbers in [0, 1)", "for instance 0.5 0.999")


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
    objective: str = "non-saturating"
    """What the players minimise: an entry of training/objectives.py, see --list."""
    regularizers: tuple[Annotated[Term, _TERM], ...] = ()
    """Penalties added to the losses, each with its weight and, if lazy, its interval in steps."""
    optim_G: AdamConfig = AdamConfig()
    """Steps of the generator."""
    optim_D: AdamConfig = AdamConfig()
    """Steps of the discriminator."""
    batch_size: int = 64
    """Images per step of each player."""
    total_kimg: float
    """Length of the training, in thousands of real images shown."""
    ema_kimg: float = 10.0
    """Half-life of the averaged generator, in thousands of images; 0 exports the last iterate."""
    ema_rampup: float = 0.05
    """Bound of the half-life early on, as a share of the images seen so far; 0 for no bound."""
    tick_kimg: float
    """Thousands of images from one line of metrics, sample grid and checkpoint to the next."""
    seed: int = 0
    """Of every random draw of the training, 0 or more."""

    def __post_init__(self) -> None:
        """Refuses options that make no training."""
        registries = {"init_D": list(INITIALIZATIONS), "objective": list(OBJECTIVES)}
        for field, known in registries.items():
            name = getattr(self, field)
            require(name in known, field, name, ", ".join(known), "see --list")
        names = [term.name for term in self.regularizers]
        once = len(set(names)) == len(names)
        require(once, "regularizers", names, "each name once", "leave one out")
        more = "set --batch-size to 2 or more: batch norm needs two images"
        require(self.batch_size >= 2, "batch_size", self.batch_size, "2 or more", more)
        require_number("total_kimg", self.total_kimg, above=0)
        require_number("tick_kimg", self.tick_kimg, above=0)
        for field in ("ema_kimg", "ema_rampup"):
            value = getattr(self, field)
            nonnegative = math.isfinite(value) and value >= 0
            require(nonnegative, field, value, "0 or more", f"set --{field.replace('_', '-')}")
        require(0 <= self.seed < 2**63, "seed", self.seed, "0 .. 2**63 - 1", "set --seed")

    def check_shape(self, shape: ImageShape) -> None:
        """Raises ConfigError where the network can't make the data's shape."""
        try:
            self.network.check(shape)
        except ValueError as error:
            raise ConfigError(str(error)) from error

    @property
    def total_nimg(self) -> int:
        """Images shown in the whole training: whole batches that make up total_kimg."""
        return math.ceil(round(self.total_kimg * 1000) / self.batch_size) * self.batch_size

    @property
    def tick_nimg(self) -> int:
        """Images from tick to tick, at least one batch."""
        return max(round(self.tick_kimg * 1000), self.batch_size)


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
