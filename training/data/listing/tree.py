"""The files of a folder, at any depth."""

import os
import stat
from pathlib import Path

from training.data.decoding import Skipped
from training.data.file_names import printable
from training.data.listing.member import Listing, Member
from training.data.listing.order import by_path

_NUM_NAMED = 3


def list_folder(root: Path) -> Listing:
    """Every regular file below the root, except hidden ones.

    Links to folders are followed, and each folder is entered once. Entries that can't be used are
    skipped with a reason.
    """
    names: list[str] = []
    skipped: list[Skipped] = []
    hidden: list[str] = []
    seen: set[tuple[int, int]] = set()

    def unreadable(error: OSError) -> None:
        skipped.append(Skipped.of(os.path.relpath(error.filename, root), str(error.strerror)))

    for folder, subfolders, files in os.walk(root, onerror=unreadable, followlinks=True):
        status = Path(folder).stat()  # a link may lead back to a folder above it
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        below = Path(folder).relative_to(root)
        hidden += [str(below / name) for name in sorted(subfolders) if is_hidden(name)]
        subfolders[:] = sorted(name for name in subfolders if not is_hidden(name))
        for name in sorted(name for name in files if not is_hidden(name)):
            path = str(below / name)
            try:
                regular = stat.S_ISREG(Path(folder, name).stat().st_mode)
            except OSError as error:
                skipped.append(Skipped.of(path, str(error.strerror)))
                continue
            if regular:
                names.append(path)
            else:
                skipped.append(Skipped.of(path, "not a regular file"))
    members = [
        Member(name=name, inner=name, source=root / name) for name in sorted(names, key=by_path)
    ]
    notes = [f"left out: {named(hidden)}, hidden"] if hidden else []
    return Listing(members=members, skipped=skipped, notes=notes)


def is_hidden(name: str) -> bool:
    """True for names that begin with a dot, and for what macOS adds to archives."""
    return name.startswith(".") or name == "__MACOSX"


def named(names: list[str]) -> str:
    """The first names in words, and how many more there are."""
    more = f" and {len(names) - _NUM_NAMED:,} more" if len(names) > _NUM_NAMED else ""
    return ", ".join(map(printable, names[:_NUM_NAMED])) + more
