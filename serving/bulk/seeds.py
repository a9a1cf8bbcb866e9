"""The seeds of a plan as ranges, so that a billion of them take a few bytes.

Their order is the order of the images. No seed comes twice: its image would be the same.
"""

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.latents import MAX_SEED
from serving.bulk.errors import PlanError
from serving.errors import quoted

MAX_IMAGES = 10**12
"""More than that is a slip of the pen: a year of ten thousand images a second is a third of it."""
_RANGE = re.compile(r"(\d{1,20})(?:\s*-\s*(\d{1,20}))?", re.ASCII)

Range = tuple[int, int]
"""First and last seed, both included."""


@dataclass(frozen=True)
class Seeds:
    """Ranges of seeds that don't overlap, in the order that was given."""

    ranges: tuple[Range, ...]

    def __len__(self) -> int:
        return int(self._ends[-1])

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the sequence, however it was written down."""
        return hashlib.sha256(",".join(self.texts()).encode("ascii")).hexdigest()

    def texts(self) -> Iterator[str]:
        """Each range as it is written on the command line."""
        return (str(a) if a == b else f"{a}-{b}" for a, b in self.ranges)

    def part(self, start: int, stop: int) -> tuple[Range, ...]:
        """Ranges of the seeds at the positions start .. stop - 1."""
        found = []
        index = int(np.searchsorted(self._ends, start, side="right"))
        while start < stop:
            first, last = self.ranges[index]
            end = int(self._ends[index])
            begin = end - (last - first + 1)
            upto = min(stop, end)
            found.append((first + start - begin, first + upto - begin - 1))
            start = upto
            index += 1
        return tuple(found)

    @cached_property
    def _ends(self) -> npt.NDArray[np.int64]:
        """Position after each range's last seed, [K]."""
        return np.cumsum([last - first + 1 for first, last in self.ranges], dtype=np.int64)


def expand(ranges: Iterable[Range]) -> npt.NDArray[np.uint64]:
    """All seeds of some ranges, [N] uint64."""
    parts = [
        np.uint64(first) + np.arange(last - first + 1, dtype=np.uint64) for first, last in ranges
    ]
    return np.concatenate(parts)


def parse_seeds(text: str) -> Seeds:
    """Parses seeds such as `0-999999` or `1,5,9-20`.

    Raises:
        PlanError: it is malformed, a seed is too large or comes twice.
    """
    return make_seeds(
        (_range(part.strip(), "--seeds") for part in text.split(",")), option="--seeds"
    )


def read_seeds(path: Path) -> Seeds:
    """Reads seeds from a file: a seed or a range a line; `#` begins a comment.

    Raises:
        PlanError: it can't be read, or a line is wrong.
    """
    option = "--seeds-from"
    return make_seeds((_range(text, where) for where, text in lines(path, option)), option=option)


def lines(path: Path, option: str) -> Iterator[tuple[str, str]]:
    """Lines of a text file without comments, each with its place for an error.

    Raises:
        PlanError: the file can't be read.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                text = line.partition("#")[0].strip()
                if text:
                    yield f"{option} {path}, line {number}", text
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{option} is {path}: {error}; name a text file") from error


def make_seeds(ranges: Iterable[Range], *, option: str) -> Seeds:
    """Joins neighbours and checks all.

    Raises:
        PlanError: there are none, too many, or one comes twice.
    """
    joined: list[list[int]] = []
    for first, last in ranges:
        if joined and joined[-1][1] + 1 == first:
            joined[-1][1] = last
        else:
            joined.append([first, last])
    if not joined:
        raise PlanError(f"{option} names no seed; give at least one, such as 0-15")
    ordered = sorted(joined)
    for (_, last), (first, _) in itertools.pairwise(ordered):
        if first <= last:
            raise PlanError(f"{option} names seed {first} twice; name each seed once")
    total = sum(last - first + 1 for first, last in joined)
    if total > MAX_IMAGES:
        raise PlanError(f"{option} names {total} seeds, allowed are {MAX_IMAGES}; split the plan")
    return Seeds(tuple((first, last) for first, last in joined))


def _range(text: str, where: str) -> Range:
    match = _RANGE.fullmatch(text)
    if match is None:
        raise PlanError(
            f"{where} holds {quoted(text)}: neither a seed in 0 .. 2**64 - 1 nor a range such as "
            "0-999"
        )
    first = int(match[1])
    last = int(match[2]) if match[2] else first
    if max(first, last) > MAX_SEED:
        raise PlanError(f"{where} holds {text}: a seed lies in 0 .. {MAX_SEED} (2**64 - 1)")
    if last < first:
        raise PlanError(f"{where} holds {text}: the end of a range comes before its start")
    return first, last
