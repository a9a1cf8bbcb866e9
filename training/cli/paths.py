"""Paths in config.json: absolute, and relative to the run for one that is moved with its data.

A run is resumed from any working directory. What lay beside it is found where it lies beside it
now, after all of it was moved or is mounted elsewhere.
"""

import os
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PLACES = "places"
"""Entry of config.json: the run's folder, and the paths relative to it."""

_MOST_LETTERS = 63  # of a model's name
_ARCHIVES = (".zip", ".tar")


def absolute(path: str | Path) -> str:
    """The path from the root on, with links left as they are."""
    return os.path.abspath(path)


def with_absolute(record: Mapping[str, Any]) -> dict[str, Any]:
    """A run's record with absolute paths, and without its places.

    record: the content of config.json; relative paths are those of the working directory.
    """
    made = {name: value for name, value in record.items() if name != PLACES}
    made["repository"] = absolute(made["repository"])
    for name in ("training", "asked"):
        if made.get(name) is not None:
            made[name] = {**made[name], "data": _absolute_data(made[name]["data"])}
    return made


def places(record: Mapping[str, Any], run: Path) -> dict[str, Any]:
    """Where a run and what it needs lie. record: with absolute paths."""
    home = absolute(run)
    data = _data_paths(record["training"]["data"])
    return {
        "run": home,
        "repository": os.path.relpath(record["repository"], home),
        "data": [os.path.relpath(path, home) for path in data],
    }


def found_again(record: dict[str, Any], run: Path) -> dict[str, Any]:
    """A run's record with the paths as they are now."""
    home = Path(absolute(run))
    paths = [record["repository"], *_data_paths(record["training"]["data"])]
    known = record.get(PLACES)
    beside: dict[str, Path] = {}
    if known is None:  # a release that wrote paths as they were given, mostly from two above
        above = home.parent.parent
        beside = {path: above / path for path in paths if not Path(path).exists()}
    elif known["run"] != str(home):
        near = [known["repository"], *known["data"]]
        beside = {
            path: Path(os.path.normpath(home / each))
            for path, each in zip(paths, near, strict=False)
        }
    moved = {path: str(near) for path, near in beside.items() if near.exists()}
    made = {**record, "repository": moved.get(record["repository"], record["repository"])}
    for name in ("training", "asked"):
        if made.get(name) is not None:
            made[name] = {**made[name], "data": _moved_data(made[name]["data"], moved)}
    return made


def name_of(folder: Path) -> str | None:
    """A model's name for a folder of images; None where its name has no usable letter."""
    path = Path(absolute(folder))
    text = path.stem if path.suffix.lower() in _ARCHIVES else path.name
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-._")[:_MOST_LETTERS] or None


def _absolute_data(data: Mapping[str, Any]) -> dict[str, Any]:
    paths = _data_paths(data)
    return _moved_data(data, {path: absolute(path) for path in paths})


def _data_paths(data: Mapping[str, Any]) -> list[str]:
    """The folder of the images, and the files of their weights."""
    files = [word for word in data.get("weights", ()) if "=" not in word]
    return [path for path in (data.get("path"), *files) if path is not None]


def _moved_data(data: Mapping[str, Any], moved: Mapping[str, str]) -> dict[str, Any]:
    made = dict(data)
    if made.get("path") is not None:
        made["path"] = moved.get(made["path"], made["path"])
    if "weights" in made:
        made["weights"] = [moved.get(word, word) for word in made["weights"]]
    return made
