"""What may be raised anywhere: the kinds of the fault matrix."""

import errno
from collections.abc import Callable


class ForeignError(Exception):
    """A library's own."""


class ForeignBaseError(BaseException):
    """As extension modules raise it: no `except Exception` catches it."""


class UnspeakableError(Exception):
    """It can't even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


_NUMBERS = ("EIO", "EMFILE", "ENOSPC", "ESTALE", "EACCES", "ENOENT")


def _of_system(name: str) -> Callable[[], OSError]:
    return lambda: OSError(getattr(errno, name), f"as {name}")


KINDS: dict[str, Callable[[], BaseException]] = {
    **{name: _of_system(name) for name in _NUMBERS},
    "MemoryError": MemoryError,
    "RecursionError": lambda: RecursionError("deep"),
    "AssertionError": AssertionError,
    "foreign": lambda: ForeignError("odd"),
    "unspeakable": UnspeakableError,
    "foreign BaseException": lambda: ForeignBaseError("odd"),
}
"""Makes one of each, by name."""
