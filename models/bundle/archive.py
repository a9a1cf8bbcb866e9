"""Reads .npz files from untrusted sources, with a limit on their size before they are inflated.

`numpy.load` trusts an archive: some kilobytes can inflate to more than a machine's memory, and a
header alone can ask for any amount. Here sizes are checked first, in the archive's directory and
then in each array's header, and nothing is ever unpickled.
"""

import io
import math
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from models.bundle.files import open_regular, size_of

Arrays = dict[str, npt.NDArray[Any]]

_SUFFIX = ".npy"
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # what NumPy writes
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class ArchiveError(ValueError):
    """The archive is refused; the message says why."""


def read_arrays(path: Path, *, names: Collection[str] | None, max_bytes: int) -> Arrays:
    """Reads the arrays of a .npz file.

    Args:
        path: the file.
        names: the only arrays that it may hold; None for any.
        max_bytes: limit of their total size when inflated, and of the file.

    Raises:
        ArchiveError: it holds something else, or more.
        OSError, zipfile.BadZipFile, zlib.error, ValueError: it can't be read.
    """
    with open_regular(path) as stream:
        size = size_of(stream)
        if size > max_bytes:
            raise ArchiveError(f"holds {size} bytes, allowed are {max_bytes}")
        return read_stream(stream, names=names, max_bytes=max_bytes)


def read_stream(stream: BinaryIO, *, names: Collection[str] | None, max_bytes: int) -> Arrays:
    """The same of an open file, or of bytes in memory."""
    with zipfile.ZipFile(stream) as archive:
        return _arrays(archive, names, max_bytes)


def _arrays(archive: zipfile.ZipFile, names: Collection[str] | None, max_bytes: int) -> Arrays:
    members = archive.infolist()
    given = [member.filename for member in members]
    known = set(given) if names is None else {name + _SUFFIX for name in names}
    if len(set(given)) != len(given) or not set(given) <= known:
        raise ArchiveError(f"holds {_some(given)}, allowed are {', '.join(sorted(known))}")
    size = sum(member.file_size for member in members)
    if size > max_bytes:
        raise ArchiveError(f"inflates to {size} bytes, allowed are {max_bytes}")
    return {member.filename.removesuffix(_SUFFIX): _array(archive, member) for member in members}


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> npt.NDArray[Any]:
    if member.compress_type not in _COMPRESSIONS:
        raise ArchiveError(f"{member.filename} has a compression that NumPy never writes")
    with archive.open(member) as stream:
        # At most the size in the directory, which was checked: a longer stream stays unread.
        data = io.BytesIO(stream.read(member.file_size))
    version = np.lib.format.read_magic(data)
    if version not in _HEADERS:
        raise ArchiveError(f"{member.filename} is of version {version[0]}.{version[1]}")
    shape, fortran, dtype = _HEADERS[version](data)
    rest = data.getbuffer()[data.tell() :]
    if dtype.hasobject:
        raise ArchiveError(f"{member.filename} holds objects, which only pickle could read")
    if math.prod(shape) * dtype.itemsize != len(rest):
        raise ArchiveError(
            f"{member.filename} says {dtype} {list(shape)}, and holds {len(rest)} bytes"
        )
    array: npt.NDArray[Any] = np.frombuffer(rest, dtype)
    return array.reshape(shape, order="F" if fortran else "C")


def _some(names: list[str]) -> str:
    shown = ", ".join(repr(name[:60]) for name in names[:4])
    return shown + (" ..." if len(names) > 4 else "")
