"""What is sent: rows, labels and other fields as callers have them, to JSON."""

import json
import reprlib
from typing import Any

from serving.client.errors import InvalidRequestError


def rows_of(given: dict[str, Any]) -> tuple[str, list[Any]]:
    """The field that says what images to make, and its values, one an image.

    Raises:
        InvalidRequestError: there are two such fields, or none, or it holds no rows.
    """
    found = {name: values for name, values in given.items() if values is not None}
    if len(found) != 1:
        both = "both" if found else "neither"
        raise InvalidRequestError(f"{both} of seeds and latents is given; give one of them")
    ((name, values),) = found.items()
    return name, rows(name, values)


def rows(name: str, values: Any) -> list[Any]:
    """The same as `listed`, of one number a list of one."""
    found = listed(name, values)
    return [found] if isinstance(found, int) else found


def listed(name: str, values: Any) -> list[Any] | int:
    """One whole number, or a list of what a sequence, an array or a tensor holds.

    Raises:
        InvalidRequestError: it is nothing of that.
    """
    if hasattr(values, "tolist"):
        values = values.tolist()
    if isinstance(values, int):
        return values
    try:
        return list(values)
    except TypeError:
        raise InvalidRequestError(
            f"{name} is {_shown(values)}, must be a whole number or a sequence"
        ) from None


def encoded(fields: dict[str, Any]) -> bytes:
    """The fields as JSON.

    Raises:
        InvalidRequestError: JSON has no word for a value: NaN, or an object of another library.
    """
    return f"{{{','.join(_member(name, value) for name, value in fields.items())}}}".encode()


def _member(name: str, value: Any) -> str:
    try:
        said = json.dumps(value, allow_nan=False, default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(
            f"{name} is {_shown(value)}, which can't be said in JSON ({error}); "
            "numbers must be finite, and all else plain"
        ) from None
    return f"{json.dumps(name)}:{said}"


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, range):
        return list(value)
    raise TypeError(f"{type(value).__name__} is none of its types")


def _shown(value: Any) -> str:
    try:
        return reprlib.repr(value)
    except ValueError:  # a number of too many digits
        return f"a {type(value).__name__}"
