"""What a command measured, as JSON that any reader takes, and kept in the run for the report."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from models.bundle import write_synced
from training.finite_json import as_json

FOLDER = "stability"
"""In a run's folder: a file for each command and checkpoint, which `training.report` reads."""


def keep(
    run: Path, name: str, cur_nimg: int, record: Mapping[str, Any], say: Callable[[str], None]
) -> None:
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
