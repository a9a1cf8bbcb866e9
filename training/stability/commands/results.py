"""What a command measured, as JSON that any reader takes, and kept in the run for the report."""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from models.bundle import write_synced

FOLDER = "stability"
"""In a run's folder: a file for each command and checkpoint, which `training.report` reads."""
NOT_FINITE = "not_finite"

Record = Mapping[str, Any]


def as_json(record: Record) -> str:
    """Returns the record as JSON, which knows neither infinity nor NaN.

    They become null, and `not_finite` says for each by its path what it was.
    """
    found = dict(_not_finite(record))
    whole = {**_finite(record), **({NOT_FINITE: found} if found else {})}
    return json.dumps(whole, indent=2, allow_nan=False)


def keep(run: Path, name: str, cur_nimg: int, record: Record, say: Callable[[str], None]) -> None:
    """Writes the record into the run's folder; says where that fails, as the result isn't lost.

    Args:
        run: the run's folder.
        name: of the command.
        cur_nimg: images shown at the checkpoint.
        record: JSON types.
        say: is given a line where nothing can be written.
    """
    path = run / FOLDER / f"{name}-{cur_nimg:010d}.json"
    temporary = path.with_name(f".{path.name}.tmp")
    content = {"command": name, "measured": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **record}
    try:
        path.parent.mkdir(exist_ok=True)
        write_synced(temporary, as_json(content).encode())
        temporary.replace(path)
    except OSError as error:
        say(f"warning: the report won't have this result: {path}: {error.strerror or error}")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _not_finite(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yields the path and the name of each number that JSON can't write."""
    named = isinstance(value, Mapping)
    if named or isinstance(value, (list, tuple)):
        for name, each in value.items() if named else enumerate(value):
            yield from _not_finite(each, f"{path}.{name}" if path else str(name))
    elif isinstance(value, float) and not math.isfinite(value):
        sign = "-" if value < 0 else ""
        yield path, "not a number" if math.isnan(value) else f"{sign}infinity"
