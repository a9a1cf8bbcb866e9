"""Optional parts of a bundle that are archives of arrays: read whole, or refused if altered.

Directions, styles and units are such parts. What is in them, this module doesn't know.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

from models.bundle.bundle import Bundle
from models.bundle.files import open_regular, size_of
from models.errors import BundleError


def read_part(bundle: Bundle, name: str, *, max_bytes: int) -> bytes | None:
    """Reads a part, whose digest is compared with the manifest; None where there is none.

    Raises:
        BundleError: the file was altered, is too large, or can't be read.
    """
    entry = bundle.manifest.files.get(name)
    if entry is None:
        return None
    path = bundle.path / name
    try:
        with open_regular(path) as stream:
            size = size_of(stream)
            data = stream.read(max_bytes)
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}; publish the model again") from error
    if size > max_bytes or hashlib.sha256(data).hexdigest() != entry.sha256:
        raise BundleError(f"{path}: the file was altered after export: publish the model again")
    return data


@contextlib.contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Makes whatever bytes that are no archive raise, and arrays that don't fit, one error.

    Raises:
        BundleError: names the file and what is wrong.
    """
    try:
        yield
    except Exception as error:  # zlib and NumPy raise anything
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise BundleError(
            f"{path}: {reason or type(error).__name__}; export the model again"
        ) from error
