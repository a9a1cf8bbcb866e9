"""Names of files as text that can be printed, written and compared, whatever bytes they are of."""

import unicodedata

_CONTROLS = {"Cc", "Cs", "Zl", "Zp"}  # of which lines and a terminal's colours are made; no UTF-8
_TURNS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}  # change reading order


def printable(text: str) -> str:
    r"""The text with an escape (\n, \x1b, \u2028) for each character that would change a line.

    A byte of a file name that isn't UTF-8 becomes \xe9, say. What is printable stays as it is, so
    that names escaped once are not escaped again.
    """
    return "".join(map(_escaped, text))


def _escaped(char: str) -> str:
    if unicodedata.category(char) in _CONTROLS or unicodedata.bidirectional(char) in _TURNS:
        if "\udc80" <= char <= "\udcff":  # os.fsdecode's form of a byte that is no UTF-8
            return f"\\x{ord(char) - 0xDC00:02x}"
        return char.encode("unicode_escape").decode("ascii")
    return char
