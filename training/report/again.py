"""How to make a run again: the command line that gives its configuration."""

import shlex

from training.cli.command import PROG, parse
from training.cli.words import changed_words, plain
from training.config.training import completed, flatten, to_builtins
from training.errors import TrainingError
from training.recipes import RECIPES
from training.runs.catalogue import Run


def command_of(run: Run) -> tuple[str, bool]:
    """The command line that trains the same again.

    Returns:
        The command, and whether it was read back to exactly the run's options; if not, the run is
        of another release, and its config.json counts.
    """
    recipe = run.options.get("recipe")
    if not isinstance(recipe, str) or recipe not in RECIPES:
        return f"{PROG} --resume {shlex.quote(str(run.folder))}", False
    try:
        # What an earlier release didn't know, as it was meant.
        options = flatten(completed(run.record["training"]))
        words = [str(recipe), *changed_words(options, RECIPES[recipe].config)]
        found = flatten(to_builtins(parse(words).config))
    except (TrainingError, TypeError, ValueError, KeyError, AttributeError, SystemExit):
        return f"{PROG} {recipe} (and the options of config.json)", False
    known = {name: plain(value) for name, value in options.items()}
    exact = all(name in found and plain(found[name]) == value for name, value in known.items())
    return f"{PROG} {shlex.join(words)}", exact
