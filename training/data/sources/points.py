"""The dataset `points`: anybody's points of the plane, a CSV file of x and y.

As with the mixtures, a point is an image of one row and two grey values. Networks see it centred
and in units in which the farthest coordinate stays within what bytes can show.
"""

import csv
import io
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.networks.plane import SPAN
from training.data.sources.registry import ImageRequest, Raw, dataset
from training.errors import DataError

MIN_POINTS = 2
MAX_POINTS = 1_000_000
_WITHIN = 0.98
"""Share of the span that the farthest point may reach: none is cut off where models give bytes."""


@dataset("points", labelled=False, needs_path=True, points=True)
def points(request: ImageRequest) -> Raw:
    """The points of the CSV file that --data.path names."""
    try:
        text = Path(request.root).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"data.path is {str(request.root)!r}, allowed: a CSV file of two columns, x and y, "
            f"but it can't be read: {error}; name another file with --data.path"
        ) from error
    return raw_of(parsed(text, str(request.root)))


def parsed(text: str, where: str) -> npt.NDArray[np.float64]:
    """Reads points [N, 2] from CSV text; a first line that holds no numbers is a heading.

    Raises:
        DataError: a line isn't two finite numbers, or there are too few or too many lines.
    """
    try:
        rows = list(csv.reader(io.StringIO(text)))
    except csv.Error as error:
        raise DataError(f"{where}: it is no CSV file: {error}; name another file") from error
    found: list[tuple[float, float]] = []
    for number, row in enumerate(rows, 1):
        if not row:
            continue
        try:
            x, y = (float(cell) for cell in row[:2])
            if len(row) != 2 or not (math.isfinite(x) and math.isfinite(y)):
                raise ValueError
        except ValueError:
            if number == 1 and not any(map(_is_number, row)):
                continue
            raise DataError(
                f"{where}: line {number} is {','.join(row)[:60]!r}, allowed: two finite numbers, "
                "x,y; mend that line"
            ) from None
        found.append((x, y))
    if not MIN_POINTS <= len(found) <= MAX_POINTS:
        raise DataError(
            f"{where}: it holds {len(found):,} points, allowed: {MIN_POINTS} .. {MAX_POINTS:,}; "
            "give a line x,y for each point"
        )
    return np.array(found)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def raw_of(found: npt.NDArray[np.float64]) -> Raw:
    """The dataset of points [N, 2], in its units.

    Raises:
        DataError: all points are one.
    """
    centred = found - found.mean(0)
    spread, farthest = float(centred.std()), float(np.abs(centred).max())
    if not spread > 0:
        raise DataError(f"all {len(found)} points are {found[0].tolist()}; give different ones")
    unit = max(spread, farthest / (_WITHIN * SPAN))
    exact = (centred / unit).astype(np.float32).reshape(-1, 1, 1, 2)
    rounded = np.clip(np.round((exact / SPAN + 1) * 127.5), 0, 255).astype(np.uint8)
    return Raw(images=rounded, exact=exact)
