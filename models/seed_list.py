"""Seeds as a person writes them on a command line: `1-16,42`."""

import argparse
from collections.abc import Sequence

from models.latents import MAX_SEED

MOST_SEEDS = 1_000_000
_MOST_SHOWN = 60


class TooManySeedsError(argparse.ArgumentTypeError):
    """More seeds than are allowed."""


def seeds_of(text: str, most: int = MOST_SEEDS) -> list[int]:
    """Parses seeds such as `1-16,42`; for argparse, as the type of an argument.

    Raises:
        TooManySeedsError: there are more than `most`; found before any is made.
        argparse.ArgumentTypeError: it is malformed.
    """
    if text.count(",") >= most:  # before it is split
        raise TooManySeedsError(f"more than {most:,} seeds")
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        ends = (first, last if dash else first)
        if not all(map(_is_seed, ends)):
            raise argparse.ArgumentTypeError(
                f"{_shown(part)} is neither a seed in 0 .. 2**64 - 1 nor a range such as 1-16"
            )
        start, stop = map(int, ends)
        if stop < start:
            raise argparse.ArgumentTypeError(
                f"{_shown(part)} is a range whose end comes before its start"
            )
        if len(seeds) + stop - start + 1 > most:
            raise TooManySeedsError(f"more than {most:,} seeds")
        seeds += range(start, stop + 1)
    return seeds


def written_seeds(seeds: Sequence[int]) -> str:
    """Writes seeds as `seeds_of` reads them; runs of rising ones as a range."""
    parts: list[str] = []
    first = last = -1
    for seed in [*seeds, -1]:
        if last >= 0 and seed == last + 1:
            last = seed
            continue
        if last >= 0:
            parts.append(str(first) if first == last else f"{first}-{last}")
        first = last = seed
    return ",".join(parts)


def _shown(part: str) -> str:
    """A part as a refusal repeats it, never longer than a line."""
    text = part.strip()
    return repr(text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}...")


def _is_seed(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 20 and int(text) <= MAX_SEED
