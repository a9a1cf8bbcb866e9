"""What a client sent, as an error repeats it: recognisable, and never longer than a line."""

import reprlib
from typing import Any

_MOST_DIGITS = 40


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 80
        self.maxlevel = 2

    def repr_int(self, value: int, level: int) -> str:
        """Part of reprlib; Python itself refuses to write numbers of thousands of digits."""
        few = abs(value) < 10**_MOST_DIGITS
        return str(value) if few else f"a number of {value.bit_length()} bits"


_short = _Short()


def shown(value: Any) -> str:
    """A value as Python writes it, with dots for what is left out; bytes as text."""
    return _short.repr(value.decode("latin-1") if isinstance(value, bytes) else value)
