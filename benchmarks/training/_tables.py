"""Tables that benchmarks write into pages, between the pages' marks."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

_MARK = re.compile(r"(<!-- made: (?P<name>\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(path: Path, tables: Mapping[str, str]) -> None:
    """Writes tables into a page.

    Raises:
        ValueError: the page has no marks, or one of an unknown table.
    """
    text = path.read_text()
    names = [match["name"] for match in _MARK.finditer(text)]
    if not names or not tables.keys() >= set(names):
        raise ValueError(f"{path} has marks for {names}, allowed: {', '.join(tables)}")
    text = _MARK.sub(lambda found: f"{found[1]}\n{tables[found['name']]}\n{found[3]}", text)
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.rename(path)


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
