"""JSON to typed values; where it is something else, an error that says what, where and instead.

Knows no request's meaning: types are the caller's.
"""

from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from serving.errors import InvalidRequestProblem, NotJsonProblem

Decoded = TypeVar("Decoded")


def decode(
    decoder: "msgspec.json.Decoder[Decoded]",
    body: bytes | bytearray,
    *,
    example: str = '{"seeds": [1, 2]}',
) -> Decoded:
    """Reads a JSON body. example: one, for a client that sent none.

    Raises:
        NotJsonProblem: it isn't JSON.
        InvalidRequestProblem: a field is unknown, or has the wrong type or range.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidRequestProblem(in_words(str(error), decoder.type)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        finite = b"NaN" in body or b"Infinity" in body
        hint = "JSON knows neither NaN nor Infinity, " if finite else ""
        raise NotJsonProblem(
            f"the body can't be read as JSON: {error}; {hint}send for example {example}"
        ) from None


def in_words(text: str, kind: Any) -> str:
    """Puts the path first in a message of msgspec's: "seeds[1]: Expected `int`, got `str`".

    kind: the struct; where one of a few words was expected, the message says which.
    """
    message, _, path = text.partition(" - at `$")
    path = path.rstrip("`").lstrip(".")
    if message.startswith("Invalid enum value") and path in getattr(kind, "__annotations__", {}):
        message += f", allowed are {', '.join(_words(get_type_hints(kind)[path]))}"
    return f"{path}: {message}" if path else message


def _words(kind: Any) -> list[str]:
    """The words of a Literal, wherever in the annotation it is."""
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    return [word for part in get_args(kind) for word in _words(part)]
