"""The configuration of a training: a frozen dataclass that is checked when it is made, and JSON.

Equal configurations give equal weights on one machine. Folders and the device are no part of it
(`training.cli.command` has them), and neither are recipes.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from models.networks import FAMILIES
from training.config.options import TrainingOptions
from training.config.rules import check
from training.data.config import EARLIER
from training.errors import ConfigError, require, require_number
from training.game.objectives import OBJECTIVES
from training.game.updates import UPDATES
from training.optim.initialization import INITIALIZATIONS


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(TrainingOptions):
    """The checked configuration of one training."""

    def __post_init__(self) -> None:
        """Checks each option, and how they fit together.

        Raises:
            ConfigError: a value is not allowed, alone or beside another option.
        """
        registries: dict[str, Collection[str]] = {
            "init_D": INITIALIZATIONS,
            "objective": OBJECTIVES,
            "update": UPDATES,
        }
        for field, registry in registries.items():
            name = getattr(self, field)
            require(name in registry, field, name, ", ".join(registry), "--list explains them")
        more = "set --batch-size to 2 or more: batch norm needs two images"
        require(self.batch_size >= 2, "batch_size", self.batch_size, "2 or more", more)
        for field in ("total_kimg", "tick_kimg", "unrolled_lr"):
            require_number(field, getattr(self, field), above=0)
        for field in ("ema_kimg", "ema_rampup"):
            value = getattr(self, field)
            nonnegative = math.isfinite(value) and value >= 0
            require(nonnegative, field, value, "0 or more", f"set {flag(field)}")
        for field in ("steps_D", "steps_G", "accumulate", "packing"):
            value = getattr(self, field)
            require(value >= 1, field, value, "1 or more", f"set {flag(field)}")
        for field in ("frozen_D", "unrolled_steps", "lookahead_steps"):
            value = getattr(self, field)
            require(value >= 0, field, value, "0 or more", f"set {flag(field)}")
        ahead = self.extrapolation
        sane = math.isfinite(ahead) and ahead >= 0
        require(sane, "extrapolation", ahead, "0 or more", "set --extrapolation 2")
        alpha = self.lookahead_alpha
        require(0 < alpha <= 1, "lookahead_alpha", alpha, "(0, 1]", "set --lookahead-alpha")
        require(0 <= self.seed < 2**63, "seed", self.seed, "0 .. 2**63 - 1", "set --seed")
        averages = ("ema", "uniform")
        require(self.average in averages, "average", self.average, ", ".join(averages), "--average")
        self.optim_G.check("optim_G")
        self.optim_D.check("optim_D")
        check(self)


def flag(field: str) -> str:
    """A field's option on the command line: optim_G.lr becomes --optim-G.lr."""
    return f"--{field.replace('_', '-')}"


def to_builtins(config: TrainingConfig) -> dict[str, Any]:
    """The configuration as JSON types; "network" also holds the name of its family."""
    values: dict[str, Any] = msgspec.to_builtins(config, enc_hook=_encode)
    values["network"] = {"family": config.network.name, **values["network"]}
    return values


def from_builtins(values: dict[str, Any], where: str) -> TrainingConfig:
    """Makes the configuration that `to_builtins` was called on.

    Args:
        values: the JSON object.
        where: the file's path, for messages.

    Raises:
        ConfigError: a field is missing, unknown or not allowed.
    """
    values = completed(values)
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


_LATER: dict[str, Any] = {
    "extrapolation": 2.0,
    "fresh_batch_G": False,
    "lazy_steps": False,
    "packing": 1,
    "unrolled_adam": False,
}
"""Options that came after the first release, with what earlier ones did."""

_BEFORE: dict[str, dict[str, Any]] = {
    "augment": {"interval": 1},
    "compute": {"deterministic": False},
    "data": EARLIER,
    "watchdog": {"advice": "times-ten"},
}
"""What options were in releases that didn't have them: a run that goes on has not changed them."""


def completed(values: dict[str, Any]) -> dict[str, Any]:
    """Adds options that came later to a configuration's JSON, with the values that they had then.

    values: of any release; what can't be completed is returned as it is.
    """
    network = values.get("network")
    family = FAMILIES.get(str(network.get("family"))) if isinstance(network, dict) else None
    before = {**_BEFORE, **({"network": family.before} if family else {})}
    groups = {
        name: {**options, **values[name]}
        for name, options in before.items()
        if isinstance(values.get(name), dict)
    }
    later = _LATER if "network" in values else {}
    return {**later, **values, **groups}


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
