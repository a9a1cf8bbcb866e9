"""A configuration as the words of a command line, which `training.cli.command` reads back."""

from collections.abc import Mapping
from typing import Any

import tyro

from training.cli.command import parse
from training.config.training import TrainingConfig, flag, flatten, to_builtins
from training.game.regularizers import Term
from training.optim.schedules import Schedule
from training.transforms.corruption import Corruption

_WRITTEN: dict[str, Any] = {"regularizers": Term, "schedules": Schedule, "corruption": Corruption}
_OWN = ("recipe", "network.family")


def changed_words(options: Mapping[str, Any], recipe: TrainingConfig) -> list[str]:
    """The options that differ from the recipe's, as words of a command line.

    options: of a configuration, flat (`training.config.training.flatten`).
    """
    words: list[str] = []
    path, family = options.get("data.path"), options.get("network.family")
    data = options.get("data.dataset", recipe.data.dataset)
    # Some recipes have no default, and what one set of images takes another one refuses.
    if data != recipe.data.dataset:
        words += [flag("data.dataset"), str(data)]
    if path is not None:
        words += [flag("data.path"), str(path)]
    if recipe.data.only is tyro.MISSING:
        words += [flag("data.only"), str(options.get("data.only", ""))]
    if family != recipe.network.name:
        words += ["--network", str(family)]
    default = flatten(to_builtins(parse([recipe.recipe, *words]).config))
    for name, value in options.items():
        if name in _OWN or name not in default or plain(default[name]) == plain(value):
            continue
        if isinstance(value, bool):
            head, _, last = name.rpartition(".")
            words.append(flag(name if value else f"{head}.no-{last}" if head else f"no-{last}"))
        elif isinstance(value, (list, tuple)):
            kind = _WRITTEN.get(name)
            parts = [str(kind(**each)) if kind else str(each) for each in value]
            words += [flag(name), *(parts or ["none"])]
        else:
            words += [flag(name), "none" if value is None else f"{value}"]
    return words


def plain(value: Any) -> Any:
    """The value with lists for tuples, so that two of them can be compared."""
    return [plain(each) for each in value] if isinstance(value, (list, tuple)) else value
