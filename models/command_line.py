"""Command lines with commands of their own: options that hold for all of them."""

import argparse
from typing import Any


def add_to_all(
    whole: argparse.ArgumentParser,
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    *flags: str,
    **settings: Any,
) -> None:
    """Adds an option that may stand before the command's name or after it; after it wins.

    Args:
        whole: the parser.
        commands: its commands, all of which are there already.
        flags: the option's names.
        settings: as `add_argument` takes them.
    """
    whole.add_argument(*flags, **settings)
    # A default of its own would take the place of what stood before the command's name.
    settings = settings | {"default": argparse.SUPPRESS}
    if "help" in settings:
        settings["help"] = settings["help"].partition(" (default: ")[0]
    for command in commands.choices.values():
        command.add_argument(*flags, **settings)
