"""Tables that benchmarks write into pages, between the pages' marks."""

import argparse
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

_MARK = re.compile(r"(<!-- made: (?P<name>\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(path: Path, tables: Mapping[str, str]) -> None:
    """Writes tables into a page; those of other benchmarks stay.

    Raises:
        ValueError: the page has no place for one of them.
    """
    text = path.read_text()
    places = {match["name"] for match in _MARK.finditer(text)}
    if missing := tables.keys() - places:
        raise ValueError(f"{path} has no mark for {', '.join(sorted(missing))}")

    def filled(found: re.Match[str]) -> str:
        name = found["name"]
        return f"{found[1]}\n{tables[name]}\n{found[3]}" if name in tables else found[0]

    partial = path.with_suffix(".partial")
    partial.write_text(_MARK.sub(filled, text))
    partial.rename(path)


def check_page(path: Path) -> None:
    """Ends the program where a page can't be written at the end: before hours of training."""
    try:
        marked = _MARK.search(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise SystemExit(f"--write is {path}: {error}; name a page of docs/") from None
    if marked is None:
        raise SystemExit(f"--write is {path}: it has no marks for tables; name a page of docs/")
    if not os.access(path.parent, os.W_OK):
        raise SystemExit(f"--write is {path}: its folder can't be written to")


def at_least_one(text: str) -> int:
    """A whole number of an option, 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}, allowed is a whole number of 1 or more")
    return int(text)


def table(head: str, rows: Sequence[str]) -> str:
    """A table, or that there is nothing in it. head, rows: lines with their bars."""
    if not rows:
        return "Not played yet.\n"
    return "\n".join([head, rule(head.count("|") - 1), *rows]) + "\n"


def rule(columns: int) -> str:
    """The line below a table's head."""
    return "|---" * columns + "|"


def row(*cells: object) -> str:
    """A line of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def mean(values: Sequence[float], digits: int) -> str:
    """The mean, with its standard error where there are several."""
    if len(values) < 2:
        return f"{values[0]:.{digits}f}"
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    return f"{np.mean(values):.{digits}f} +- {error:.{digits}f}"


def listed(values: Sequence[float]) -> str:
    """Numbers in a sentence."""
    return ", ".join(f"{value:g}" for value in values)
