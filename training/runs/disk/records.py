"""Files of a run that a full disk delays: what can't be written is kept in memory and tried again.

A training of days must not end because its log can't grow. `RecordFile` appends, as to a log;
`RunFiles` writes whole files, such as a sample grid.
"""

import contextlib
import os
from pathlib import Path

_MOST_BYTES = 64 << 20  # that are kept in memory: the oldest are lost beyond it
LOST = f"lost in part, as more than {_MOST_BYTES >> 20} MiB waited for room"
_GONE = f"lost, as more than {_MOST_BYTES >> 20} MiB waited for room"


class RecordFile:
    """A file that grows. Bytes that can't be written are kept, and written before later ones."""

    def __init__(self, path: Path) -> None:
        """Opens the file for appending, and makes it where it is missing.

        Raises:
            OSError: it can't be opened.
        """
        self.path = path
        self.error: OSError | None = None
        """Why the last bytes were not written; None where everything is."""
        self.has_lost = False
        """True where bytes were dropped, as too many waited."""
        self._rest = bytearray()
        self._file = path.open("ab", buffering=0)

    def append(self, content: bytes) -> None:
        """Appends bytes now, or later where that is impossible."""
        self._rest += content
        self.flush()

    def flush(self) -> bool:
        """Tries to write what is left; returns True where nothing is."""
        try:
            while self._rest:
                # Unbuffered: a full disk takes a part, and says how much.
                written = self._file.write(self._rest[: 1 << 16])
                del self._rest[:written]
        except OSError as error:
            self.error = error
            self.has_lost |= len(self._rest) > _MOST_BYTES
            del self._rest[:-_MOST_BYTES]
            return False
        self.error = None
        return True

    def close(self) -> None:
        """Tries once more to write what is left, and closes the file."""
        self.flush()
        with contextlib.suppress(OSError):
            self._file.close()


class RunFiles:
    """Whole files, each written under a temporary name and renamed."""

    def __init__(self) -> None:
        """Has nothing to write yet."""
        self.errors: dict[Path, OSError] = {}
        """Why each file that is still to be written was not."""
        self.lost: dict[Path, str] = {}
        """The files that were dropped, as too many waited, and that in words."""
        self._rest: dict[Path, bytes] = {}

    def write(self, path: Path, content: bytes) -> None:
        """Writes a file now, or later where that is impossible; its folder is made."""
        self._rest.pop(path, None)
        self.lost.pop(path, None)
        self._rest[path] = content
        self.flush()

    def flush(self) -> bool:
        """Tries to write what is left; returns True where nothing is."""
        self.errors.clear()
        for path, content in list(self._rest.items()):
            try:
                _write(path, content)
            except OSError as error:
                self.errors[path] = error
            else:
                del self._rest[path]
        while sum(map(len, self._rest.values())) > _MOST_BYTES and len(self._rest) > 1:
            path = next(iter(self._rest))
            del self._rest[path]
            del self.errors[path]
            self.lost[path] = _GONE
        return not self.errors


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
