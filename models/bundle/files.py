"""Opens files from untrusted sources, and refuses all but regular files.

A link would lead out of its folder, and reading a pipe or a device would never end.
"""

import errno
import itertools
import os
import stat
from pathlib import Path
from typing import BinaryIO, Literal

_KINDS = {
    stat.S_IFLNK: (errno.ELOOP, "Is a symbolic link, not a file"),
    stat.S_IFDIR: (errno.EISDIR, "Is a directory"),
}


class IrregularFileError(OSError):
    """The path exists and is not a regular file."""


def open_regular(path: Path, mode: Literal["rb", "r+b"] = "rb") -> BinaryIO:
    """Opens a regular file without following a link.

    Raises:
        IrregularFileError: it is a link, a folder, a pipe or a device.
        OSError: it can't be opened.
    """
    kind = stat.S_IFMT(path.lstat().st_mode)
    if kind != stat.S_IFREG:
        raise IrregularFileError(*_KINDS.get(kind, (errno.EINVAL, "Is no regular file")), str(path))
    # The file may have become a link since lstat: the kernel refuses that one (O_NOFOLLOW).
    return open(path, mode, opener=_without_following)


def size_of(file: BinaryIO) -> int:
    """Size of an open file in bytes."""
    return os.fstat(file.fileno()).st_size


def _without_following(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)


FolderState = tuple[tuple[str, int, int, int, int], ...]
"""Name, inode, size, time of change and of modification of what a folder holds, sorted by name."""

_MAX_ENTRIES = 1000


def state_of(folder: Path) -> FolderState:
    """What changes when a file of a folder does; empty where the folder can't be read.

    Of two equal states the files are the same, as far as a file system tells without reading them.
    """
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in itertools.islice(entries, _MAX_ENTRIES):
                stat_ = entry.stat(follow_symlinks=False)
                times = (stat_.st_ctime_ns, stat_.st_mtime_ns)
                found.append((entry.name, stat_.st_ino, stat_.st_size, *times))
    except OSError:
        return ()
    return tuple(sorted(found))


def state_of_file(file: Path) -> tuple[int, ...]:
    """The same of one file; empty where it can't be looked at."""
    try:
        found = file.lstat()
    except OSError:
        return ()
    times = (found.st_ctime_ns, found.st_mtime_ns)
    return (found.st_dev, found.st_ino, found.st_size, *times)


def is_gone(folder: Path) -> bool:
    """True where a folder is known not to be there; False where it is, or nobody can tell."""
    try:
        return not stat.S_ISDIR(folder.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
