"""Turns rows, labels and other fields, as callers have them, into JSON bodies."""

import json
import reprlib
from typing import Any

from serving.client.errors import InvalidRequestError


def rows_of(given: dict[str, Any]) -> tuple[str, list[Any]]:
    """Finds the one field that is given, seeds or latents, and its values, one for each image.

    Raises:
        InvalidRequestError: both are given, or neither, or its value is no sequence.
    """
    found = {name: values for name, values in given.items() if values is not None}
    if len(found) != 1:
        both = "both" if found else "neither"
        raise InvalidRequestError(f"{both} of seeds and latents is given; give one of them")
    ((name, values),) = found.items()
    return name, rows(name, values)


def rows(name: str, values: Any) -> list[Any]:
    """Converts values as `listed` does, and one number to a list of one."""
    found = listed(name, values)
    return [found] if isinstance(found, int) else found


def listed(name: str, values: Any) -> list[Any] | int:
    """Converts a sequence, an array or a tensor to a list; one whole number stays a number.

    Raises:
        InvalidRequestError: it is none of these.
    """
    if hasattr(values, "tolist"):
        values = values.tolist()
    if isinstance(values, int):
        return values
    try:
        return list(values)
    except TypeError:
        raise InvalidRequestError(
            f"{name} is {_quoted(values)}, must be a whole number or a sequence"
        ) from None


def encoded(fields: dict[str, Any]) -> bytes:
    """Encodes the fields as JSON.

    Raises:
        InvalidRequestError: JSON can't hold a value: NaN, or an object of another library.
    """
    return f"{{{','.join(_member(name, value) for name, value in fields.items())}}}".encode()


def _member(name: str, value: Any) -> str:
    try:
        text = json.dumps(value, allow_nan=False, default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(
            f"{name} is {_quoted(value)}, which JSON can't hold ({error}); "
            "give finite numbers, strings, lists, dictionaries"
        ) from None
    return f"{json.dumps(name)}:{text}"


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, range):
        return list(value)
    raise TypeError(f"{type(value).__name__} is not a type of JSON")


def _quoted(value: Any) -> str:
    try:
        return reprlib.repr(value)
    except ValueError:  # Python refuses to print a number of too many digits
        return f"a {type(value).__name__}"
