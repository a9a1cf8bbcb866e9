"""File names, which may hold any bytes, as text that can be printed, written and compared."""

import functools
import unicodedata

from PIL import Image

_CONTROLS = {"Cc", "Cs", "Zl", "Zp"}  # end lines, colour terminals, or are no valid UTF-8
_TURNS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}  # change reading order


def printable(text: str) -> str:
    r"""Replaces control characters by escapes (\n, \x1b, \u2028).

    A byte that isn't valid UTF-8 becomes an escape, too (\xe9). Printable characters, backslashes
    among them, stay, so that a second call changes nothing.
    """
    return "".join(map(_escaped, text))


def _escaped(char: str) -> str:
    if unicodedata.category(char) in _CONTROLS or unicodedata.bidirectional(char) in _TURNS:
        if "\udc80" <= char <= "\udcff":  # os.fsdecode's form of a byte that isn't UTF-8
            return f"\\x{ord(char) - 0xDC00:02x}"
        return char.encode("unicode_escape").decode("ascii")
    return char


def is_image_name(name: str) -> bool:
    """True where a name's suffix is that of an image, whether it can be decoded here or not."""
    return f".{name.rpartition('.')[2].lower()}" in _suffixes()


@functools.cache
def _suffixes() -> frozenset[str]:
    known = {suffix for suffix, form in Image.registered_extensions().items() if form in Image.OPEN}
    return frozenset(known | {".heic", ".heif", ".avif"})
