"""A benchmark's log: a line for each training, which is therefore played once.

A benchmark can be stopped at any time and goes on where it was. A record is a JSON object that has
the training under `job`.
"""

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def key_of(job: Mapping[str, Any]) -> str:
    """What tells trainings apart: all that they were given."""
    return json.dumps(job, sort_keys=True)


class Log:
    """Records, one a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[str, Record] = {}
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                self.records[key_of(record["job"])] = record
            except (ValueError, KeyError, TypeError):
                if number < len(lines) or line.endswith(b"\n"):
                    raise SystemExit(f"{path}: line {number} is no record; delete it") from None
                # A kill or a full disk has cut it off: it is played again.
                os.truncate(path, path.stat().st_size - len(line))

    def add(self, record: Record) -> None:
        """Appends a record; a kill leaves whole lines."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = (json.dumps(record, sort_keys=True) + "\n").encode()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            if os.write(descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        finally:
            os.close(descriptor)
        self.records[key_of(record["job"])] = record

    def of(self, key: str) -> Record | None:
        """The record of a training, if it was played."""
        return self.records.get(key)

    def all(self, **wanted: object) -> list[Record]:
        """The records whose jobs have these values."""
        return [
            record
            for record in self.records.values()
            if all(record["job"][name] == value for name, value in wanted.items())
        ]
