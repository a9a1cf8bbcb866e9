"""The parameters of a game: one struct, which is a URL's query, a configuration, a command line.

Names are those of the command line of `training.run`, so that a refusal names the field that it is
about. What a game may be is decided by `TrainingConfig`; here are only the bounds that keep one
game from taking the machine.
"""

import dataclasses
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from models.networks import Plane
from training.cli.command import PROG
from training.cli.words import changed_words
from training.config.rules import check_idle
from training.config.training import TrainingConfig, flatten, to_builtins
from training.data import DataConfig
from training.data.sources.points import raw_of
from training.errors import ConfigError, DataError, require
from training.game.regularizers import Term
from training.lab.clouds import CLOUDS, DRAWN, NAMED, unpacked
from training.optim.constraints import CONSTRAINTS
from training.optim.optimizers import OptimizerConfig
from training.recipes import RECIPES

RECIPE = "ring-8"
"""Where the command line starts from."""
POINTS_FILE = "points.csv"
"""What the points of a cloud are called in a command line."""
_MANY_KIMG = 1e6
_AFRESH = (
    *("data", "points", "seed", "packing"),
    *("network.z_dim", "network.width_G", "network.width_D", "network.depth_G", "network.depth_D"),
    *("network.activation", "network.init"),
)
"""Parameters whose change begins the game anew: they are of its data or its first weights."""


def _named(default: Any, name: str, low: float = -math.inf, high: float = math.inf) -> Any:
    return field(default=default, metadata={"name": name, "low": low, "high": high})


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What makes a game what it is: equal ones give equal weights on one machine."""

    data: str = _named("ring-8", "data")
    points: str = _named("", "points")
    """Points that were drawn or dropped (`training.lab.clouds.packed`); empty for other data."""
    objective: str = _named("relativistic", "objective")
    regularizers: tuple[Term, ...] = _named(
        (Term(name="r1", weight=0.1), Term(name="r2", weight=0.1)), "regularizers"
    )
    update: str = _named("alternating", "update")
    extrapolation: float = _named(2.0, "extrapolation", 0, 8)
    method_G: str = _named("adam", "optim_G.method")
    lr_G: float = _named(1e-3, "optim_G.lr", 0, 10)
    beta1_G: float = _named(0.0, "optim_G.beta1")
    beta2_G: float = _named(0.99, "optim_G.beta2")
    method_D: str = _named("adam", "optim_D.method")
    lr_D: float = _named(1e-3, "optim_D.lr", 0, 10)
    beta1_D: float = _named(0.0, "optim_D.beta1")
    beta2_D: float = _named(0.99, "optim_D.beta2")
    steps_D: int = _named(1, "steps_D", 1, 20)
    steps_G: int = _named(1, "steps_G", 1, 20)
    unrolled_steps: int = _named(0, "unrolled_steps", 0, 10)
    unrolled_lr: float = _named(0.1, "unrolled_lr", 0, 10)
    lookahead_steps: int = _named(0, "lookahead_steps", 0, 1000)
    lazy_steps: bool = _named(False, "lazy_steps")
    batch_size: int = _named(128, "batch_size", 2, 1024)
    packing: int = _named(1, "packing", 1, 8)
    average: str = _named("ema", "average")
    ema_kimg: float = _named(10.0, "ema_kimg", 0, 10_000)
    z_dim: int = _named(2, "network.z_dim", 1, 64)
    width_G: int = _named(128, "network.width_G", 1, 512)
    width_D: int = _named(128, "network.width_D", 1, 512)
    depth_G: int = _named(2, "network.depth_G", 1, 5)
    depth_D: int = _named(2, "network.depth_D", 1, 5)
    activation: str = _named("relu", "network.activation")
    init: str = _named("uniform", "network.init")
    seed: int = _named(0, "seed", 0, 2**31 - 1)

    def __post_init__(self) -> None:
        """Refuses what is out of bounds, and what no training can be of."""
        for each in fields(self):
            name, low, high = (each.metadata[key] for key in ("name", "low", "high"))
            value = getattr(self, each.name)
            if isinstance(value, (int, float)):
                allowed = f"{low:g} .. {high:g}" if math.isfinite(high) else "a finite number"
                fits = math.isfinite(value) and low <= value <= high
                require(fits, name, value, f"{allowed} in the lab", "choose another")
        names = ", ".join(CLOUDS)
        require(self.data in CLOUDS, "data", self.data, names, "choose one of them")
        given = bool(self.points)
        why = "draw some with the mouse, or drop a CSV file on the page"
        require(given or self.data != DRAWN, "points", self.points, f"points for {DRAWN}", why)
        why = f"they are of data={DRAWN}: leave them out"
        require(not given or self.data == DRAWN, "points", "given", "none", why)
        if given:
            try:
                raw_of(unpacked(self.points))
            except DataError as error:
                raise ConfigError(
                    f"points is of one place, allowed: points of two places or more; {error}"
                ) from error
        used = self.average == "ema" or self.ema_kimg == NAMES["ema_kimg"].default
        require(used, "ema_kimg", self.ema_kimg, "with average=ema", "leave it out")
        check_idle(self.config, RECIPES[RECIPE].config)

    @property
    def config(self) -> TrainingConfig:
        """The training that the game is the beginning of; its length plays no part."""
        named = self.data in NAMED
        return TrainingConfig(
            recipe=RECIPE,
            data=DataConfig(
                dataset=self.data if named else "points",
                path=None if named else Path(POINTS_FILE),
                resolution="2x1",
                conditional=False,
            ),
            network=self._network,
            objective=self.objective,
            regularizers=self.regularizers,
            update=self.update,
            extrapolation=self.extrapolation,
            optim_G=OptimizerConfig(
                method=self.method_G, lr=self.lr_G, betas=(self.beta1_G, self.beta2_G)
            ),
            optim_D=OptimizerConfig(
                method=self.method_D, lr=self.lr_D, betas=(self.beta1_D, self.beta2_D)
            ),
            steps_D=self.steps_D,
            steps_G=self.steps_G,
            unrolled_steps=self.unrolled_steps,
            unrolled_lr=self.unrolled_lr,
            lookahead_steps=self.lookahead_steps,
            lazy_steps=self.lazy_steps,
            batch_size=self.batch_size,
            packing=self.packing,
            average=self.average,  # type: ignore[arg-type]
            # Where nothing looks at it, the command line may not name it.
            ema_kimg=self.ema_kimg if self.average == "ema" else RECIPES[RECIPE].config.ema_kimg,
            total_kimg=_MANY_KIMG,
            tick_kimg=_MANY_KIMG,
            seed=self.seed,
        )

    @property
    def _network(self) -> Plane:
        try:
            return Plane(
                z_dim=self.z_dim,
                width_G=self.width_G,
                width_D=self.width_D,
                depth_G=self.depth_G,
                depth_D=self.depth_D,
                activation=self.activation,  # type: ignore[arg-type]
                init=self.init,  # type: ignore[arg-type]
            )
        except ValueError as error:
            raise ConfigError(f"network.{error}") from error

    def query(self) -> str:
        """The URL's query that `from_query` reads; only what differs from the defaults."""
        return urlencode({name: value for name, value in self.texts().items() if value is not None})

    def texts(self, *, whole: bool = False) -> dict[str, str | None]:
        """Each parameter's value as text by its name; None for a default unless `whole`."""
        found: dict[str, str | None] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            is_default = value == each.default and not whole
            found[each.metadata["name"]] = None if is_default else _text(value)
        return found

    def command(self, *, kimg: float) -> str:
        """The command line that trains the same. kimg: its length, thousands of images shown."""
        config = replace(self.config, total_kimg=kimg, tick_kimg=max(kimg / 20, 1.0))
        words = changed_words(flatten(to_builtins(config)), RECIPES[RECIPE].config)
        if self.data not in NAMED:  # its modes aren't known, so there is nothing to measure
            words += ["--evaluation", "none", "--evaluate-kimg", "0"]
        return f"{PROG} {shlex.join([RECIPE, *words])}"

    def begins_anew(self, other: "Parameters") -> bool:
        """True where a game with these can't go on with the other ones, but starts again."""
        mine, theirs = self.texts(whole=True), other.texts(whole=True)
        return any(mine[name] != theirs[name] for name in _AFRESH) or (
            _installed(self.regularizers) != _installed(other.regularizers)
        )


NAMES = {each.metadata["name"]: each for each in fields(Parameters)}
"""The fields by their names on the command line and in URLs."""
_ALIASES = {"optim_G.betas": "optim_G.beta1", "optim_D.betas": "optim_D.beta1"}


def from_query(query: Mapping[str, str] | Sequence[tuple[str, str]]) -> Parameters:
    """Reads the parameters of a URL.

    Raises:
        ConfigError: a name is not known, a text is no such value, or a game can't have it.
    """
    given = dict(query)
    values: dict[str, Any] = {}
    for name, text in given.items():
        require(name in NAMES, name, text, ", ".join(NAMES), "leave it out")
        values[NAMES[name].name] = _value(name, text)
    return Parameters(**values)


def field_of(error: ConfigError) -> str:
    """The name of the parameter that a refusal is about; empty where it is about several."""
    head = str(error).partition(" is ")[0].partition(":")[0].strip()
    for prefix in ("network.", ""):
        name = _ALIASES.get(head, f"{prefix}{head}")
        if name in NAMES:
            return name
    return ""


def _value(name: str, text: str) -> Any:
    """A parameter's value from its text, of the type of its default."""
    default: Any = NAMES[name].default
    if isinstance(default, tuple):
        return tuple(Term.parse(word) for word in text.replace(",", " ").split())
    if isinstance(default, bool):
        require(text in ("true", "false"), name, text, "true, false", "choose one")
        return text == "true"
    if isinstance(default, str):
        return text
    kind = type(default)
    try:
        return kind(text)
    except ValueError:
        allowed = "a whole number" if kind is int else "a number"
        raise ConfigError(f"{name} is {text!r}, allowed: {allowed}; write {default:g}") from None


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else str(value)


def _installed(terms: Sequence[Term]) -> list[Term]:
    """The constraints that are built into D when it is made."""
    found = [t for t in terms if t.name in CONSTRAINTS and CONSTRAINTS[t.name].install is not None]
    return sorted(found, key=dataclasses.astuple)
