"""Files that a stranger may have made: opened only where they are files themselves.

A link would lead out of its folder, and a pipe or a device would never end.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO, Literal

_KINDS = {
    stat.S_IFLNK: (errno.ELOOP, "Is a symbolic link, not a file"),
    stat.S_IFDIR: (errno.EISDIR, "Is a directory"),
}


class IrregularFileError(OSError):
    """Something is there, and it is no regular file."""


def open_regular(path: Path, mode: Literal["rb", "r+b"] = "rb") -> BinaryIO:
    """Opens a regular file, and not what a link in its place points to.

    Raises:
        IrregularFileError: it is a link, a folder, a pipe or a device.
        OSError: it can't be opened.
    """
    kind = stat.S_IFMT(path.lstat().st_mode)
    if kind != stat.S_IFREG:
        raise IrregularFileError(*_KINDS.get(kind, (errno.EINVAL, "Is no regular file")), str(path))
    return open(path, mode, opener=_without_following)


def size_of(file: BinaryIO) -> int:
    """Bytes of an open file."""
    return os.fstat(file.fileno()).st_size


def _without_following(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)
