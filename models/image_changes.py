"""Styles and units on a command line: options of every command that makes images."""

import argparse
import math
from typing import Any

from models.seed_list import seeds_of

MOST_TRUNCATION = 2.0


def add_changes(parser: argparse.ArgumentParser) -> None:
    """Adds the options to a parser: they are fields of a request to a server, in other words."""
    group = parser.add_argument_group("changes of all images")
    group.add_argument(
        "--style-from", type=seed_of, metavar="SEED", help="another seed, for --style-layers"
    )
    group.add_argument(
        "--style-layers",
        type=seeds_of,
        metavar="LIST",
        help="styles of a style model that come from --style-from, the coarsest is 0: 4-7",
    )
    group.add_argument(
        "--style-truncation",
        type=_truncations,
        metavar="PSI,...",
        help="psi of each style in place of --truncation: 0.5,0.5,1,1",
    )
    group.add_argument(
        "--units-off",
        type=seeds_of,
        metavar="LIST",
        help="feature maps to switch off, of a model with units: 3,17",
    )


def styles_of(options: argparse.Namespace) -> dict[str, Any] | None:
    """The styles that parsed options ask for, as a request has them; None for none."""
    found = {
        "from": options.style_from,
        "layers": options.style_layers,
        "truncation": options.style_truncation,
    }
    return {name: value for name, value in found.items() if value is not None} or None


def seed_of(text: str) -> int:
    """Parses one seed, for argparse.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    seeds = seeds_of(text)
    if len(seeds) != 1:
        raise argparse.ArgumentTypeError(f"{text!r} is {len(seeds)} seeds, must be one")
    return seeds[0]


def _truncations(text: str) -> list[float]:
    found = []
    for part in text.split(","):
        try:
            value = float(part)
        except ValueError:
            value = math.nan
        if not 0 <= value <= MOST_TRUNCATION:
            raise argparse.ArgumentTypeError(
                f"{part.strip()!r} is no number in 0 .. {MOST_TRUNCATION:g}"
            )
        found.append(value)
    return found
