"""How to make a run again: the command line that gives its configuration."""

import shlex
from collections.abc import Mapping
from typing import Any

from training.cli.command import parse
from training.config.training import TrainingConfig, completed, flag, flatten, to_builtins
from training.errors import TrainingError
from training.game.regularizers import Term
from training.optim.schedules import Schedule
from training.recipes import RECIPES
from training.runs.catalogue import Run
from training.transforms.corruption import Corruption

PROG = "python -m training.run"
_WRITTEN: dict[str, Any] = {"regularizers": Term, "schedules": Schedule, "corruption": Corruption}
_OWN = ("recipe", "network.family")


def command_of(run: Run) -> tuple[str, bool]:
    """The command line that trains the same again.

    Returns:
        The command, and whether it was read back to exactly the run's options; if not, the run is
        of another release, and its config.json counts.
    """
    recipe = run.options.get("recipe")
    if recipe not in RECIPES:
        return f"{PROG} --resume {shlex.quote(str(run.folder))}", False
    try:
        # What an earlier release didn't know, as it was meant.
        options = flatten(completed(run.record["training"]))
        words = [str(recipe), *_changed(options, RECIPES[recipe].config)]
        found = flatten(to_builtins(parse(words).config))
    except (TrainingError, TypeError, ValueError, KeyError, AttributeError, SystemExit):
        return f"{PROG} {recipe} (and the options of config.json)", False
    known = {name: _plain(value) for name, value in options.items()}
    exact = all(name in found and _plain(found[name]) == value for name, value in known.items())
    return f"{PROG} {shlex.join(words)}", exact


def _changed(options: Mapping[str, Any], recipe: TrainingConfig) -> list[str]:
    """The options that differ from the recipe's, as words of a command line."""
    words: list[str] = []
    path, family = options.get("data.path"), options.get("network.family")
    if path is not None:  # some recipes have no default
        words += [flag("data.path"), str(path)]
    if family != recipe.network.name:
        words += ["--network", str(family)]
    default = flatten(to_builtins(parse([recipe.recipe, *words]).config))
    for name, value in options.items():
        if name in _OWN or name not in default or _plain(default[name]) == _plain(value):
            continue
        if isinstance(value, bool):
            head, _, last = name.rpartition(".")
            words.append(flag(name if value else f"{head}.no-{last}" if head else f"no-{last}"))
        elif isinstance(value, list):
            kind = _WRITTEN.get(name)
            parts = [str(kind(**each)) if kind else str(each) for each in value]
            words += [flag(name), *(parts or ["none"])]
        else:
            words += [flag(name), "none" if value is None else f"{value}"]
    return words


def _plain(value: Any) -> Any:
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value
