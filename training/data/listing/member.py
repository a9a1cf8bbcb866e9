"""A file of a folder or an archive, which is read only when it is asked for."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from training.data.decoding import Skipped
from training.errors import DataError

MAX_FILE_BYTES = 1 << 30
"""No image or list of labels is larger; a member of an archive that says so is refused."""

Read = Callable[[], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A file, by its path below the data's root."""

    name: str
    """Its path, with "/" between folders: unique, and the name in reports and weights."""
    inner: str
    """The part of the path that names classes: without a split's folder or an archive's file."""
    source: Path | Read
    """The file, or a function that reads it. The function may be called from any thread; it raises
    ValueError with the reason where the file can't be read."""
    label: str = ""
    """The class that lies beside it in a WebDataset archive; empty for none."""

    def read(self) -> bytes:
        """The whole file.

        Raises:
            DataError: it can't be read.
        """
        try:
            if not isinstance(self.source, Path):
                return self.source()
            if self.source.stat().st_size > MAX_FILE_BYTES:
                raise DataError(f"{self.name}: larger than 1 GiB; take a smaller file")
            return self.source.read_bytes()
        except (OSError, ValueError) as error:
            raise DataError(f"{self.name} can't be read: {error}; copy it again") from error


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The files of a folder or an archive."""

    members: list[Member]
    """In the order of their paths."""
    skipped: list[Skipped] = field(default_factory=list)
    """Files that could not be listed, and why."""
    notes: list[str] = field(default_factory=list)
    """What was decided, in words, for the user."""
