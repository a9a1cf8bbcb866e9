"""Sample weights: how often each image is drawn, relative to the others, to correct a known bias.

A weight is given as NAME=WEIGHT. Many can be given in a file: CSV with the header `name,weight`, or
JSON, one object {"name": weight}. A name is a class or an image's path relative to data.path. A
path takes precedence over a class, and an image without a weight has the weight 1.
"""

import csv
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.data.file_names import printable
from training.errors import ConfigError, DataError

_ALLOWED = "NAME=WEIGHT with a finite weight of 0 or more, or a file NAME.csv or NAME.json"

_NUM_NAMED = 20  # classes in a summary

Weights = dict[str, float]


def check(words: Sequence[str]) -> None:
    """Checks the values of --data.weights without opening files.

    Raises:
        ConfigError: a value is neither NAME=WEIGHT nor the name of a .csv or .json file.
    """
    seen: set[str] = set()
    for word in words:
        if "=" not in word:
            if Path(word).suffix not in (".csv", ".json"):
                raise ConfigError(
                    f"data.weights is {word!r}, allowed: {_ALLOWED}; for instance cat=1 dog=9"
                )
            continue
        name, weight = _rule(word)
        if name in seen:
            raise ConfigError(f"data.weights gives {name!r} twice, allowed: once; leave one out")
        seen.add(name)
        _require_weight(name, weight, ConfigError, "data.weights")


def read(words: Sequence[str]) -> Weights:
    """Reads the values of --data.weights, and their files, to weights by name.

    A value NAME=WEIGHT takes precedence over files, and a later file over an earlier one.

    Raises:
        DataError: a file can't be read or holds no valid weights.
    """
    found: Weights = {}
    for word in words:
        if "=" not in word:
            found |= _read_file(Path(word))
    return found | dict(_rule(word) for word in words if "=" in word)


def weigh(
    weights: Weights,
    *,
    num: int,
    classes: Sequence[str] | None,
    paths: Sequence[str] | None,
) -> npt.NDArray[np.float64]:
    """Looks up the weight of each image by its path or its class.

    Args:
        weights: by name.
        num: number of images.
        classes: the class of each image, "" for none; None where the data has no classes.
        paths: the path of each image relative to data.path; None where the data isn't files.

    Returns:
        [num] float64, 0 or more.

    Raises:
        DataError: a name is neither a class nor an image, or all weights are 0.
    """
    weights = {printable(name): weight for name, weight in weights.items()}
    known = set(classes or ()) - {""}
    names = known.union(paths or ())
    if unknown := [name for name in weights if name not in names]:
        allowed = ", ".join(sorted(known)[:20]) or "none: this dataset has no classes"
        files = "" if paths is None else f"; or one of {len(paths)} images by its path"
        raise DataError(
            f"data.weights names {', '.join(map(repr, unknown[:3]))}"
            f"{' and more' if len(unknown) > 3 else ''}, allowed: a class ({allowed}){files}; "
            "correct the name or leave it out"
        )
    found = np.ones(num)
    for i in range(num):
        for name in (paths[i] if paths else None, classes[i] if classes else None):
            if name in weights:
                found[i] = weights[name]
                break
    if not found.any():
        raise DataError(
            f"data.weights gives all {num} images the weight 0; give some of them more than 0"
        )
    return found


def shares(
    weights: npt.NDArray[np.float64], classes: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """For each class its share of the images and its share of the draws, in [0, 1]."""
    names, index = np.unique(np.asarray(classes), return_inverse=True)
    images = np.bincount(index) / len(weights)
    draws = np.bincount(index, weights=weights) / weights.sum()
    return {
        str(name): (float(images[i]), float(draws[i])) for i, name in enumerate(names) if name != ""
    }


def summary(weights: npt.NDArray[np.float64], classes: Sequence[str] | None) -> str:
    """One line on the effect of the weights, for the journal."""
    if not classes:
        drawn = np.count_nonzero(weights)
        return f"weights: {drawn} of {len(weights)} images are drawn, not equally often"
    lines = [
        f"{name} {image:.1%} of the images, {drawn:.1%} of the draws"
        for name, (image, drawn) in list(shares(weights, classes).items())[:_NUM_NAMED]
    ]
    return "weights: " + "; ".join(lines)


def _rule(word: str) -> tuple[str, float]:
    name, _, text = word.rpartition("=")
    try:
        weight = float(text)
    except ValueError:
        raise ConfigError(
            f"data.weights is {word!r}, allowed: {_ALLOWED}; for instance cat=1 dog=9"
        ) from None
    return name, weight


def _require_weight(
    name: str, weight: float, error: type[ConfigError] | type[DataError], where: str
) -> None:
    if not (math.isfinite(weight) and weight >= 0):
        raise error(
            f"{where}: {name!r} weighs {weight:g}, allowed: a finite number of 0 or more; "
            "choose another weight"
        )


def _read_file(path: Path) -> Weights:
    try:
        text = path.read_text(encoding="utf-8")
        entries = list(_json(text) if path.suffix == ".json" else _csv(text))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"data.weights is {path}: {error}; give a file that can be read") from error
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"data.weights is {path}: {error}; allowed: CSV with the header name,weight, or JSON "
            'of the form {"name": weight}'
        ) from error
    if not entries:
        raise DataError(f"data.weights is {path}: it holds no weight; add lines, or leave it out")
    found: Weights = {}
    for name, weight in entries:
        if name in found:
            raise DataError(f"data.weights is {path}: {name!r} is there twice; leave one out")
        _require_weight(name, weight, DataError, f"data.weights is {path}")
        found[name] = weight
    return found


def _json(text: str) -> Iterator[tuple[str, float]]:
    pairs = json.loads(text, object_pairs_hook=list)
    if not isinstance(pairs, list):
        raise TypeError("it holds no object")
    for pair in pairs:
        if not isinstance(pair, tuple):
            raise TypeError("it holds no object")
        name, weight = pair
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise TypeError(f"{name!r} weighs {weight!r}, which is not a number")
        yield name, float(weight)


def _csv(text: str) -> Iterator[tuple[str, float]]:
    rows = csv.reader(text.splitlines(), strict=True)
    try:
        header = next(rows, [])
        if [cell.strip() for cell in header] != ["name", "weight"]:
            raise ValueError(f"its first line is {','.join(header)!r}")
        for row in rows:
            if not row:
                continue
            if len(row) != 2:
                raise ValueError(f"line {rows.line_num} has {len(row)} cells")
            yield row[0], float(row[1])
    except csv.Error as error:
        raise ValueError(f"line {rows.line_num}: {error}") from error
