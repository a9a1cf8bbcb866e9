"""A benchmark's log: a line for each training, which is therefore played once.

A benchmark can be stopped at any time and goes on where it was. A record is a JSON object that has
the training under `job`.
"""

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
        for line in path.read_text().splitlines() if path.exists() else ():
            record = json.loads(line)
            self.records[key_of(record["job"])] = record

    def add(self, record: Record) -> None:
        """Appends a record; a kill leaves whole lines."""
        self.records[key_of(record["job"])] = record
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = (json.dumps(record, sort_keys=True) + "\n").encode()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

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
