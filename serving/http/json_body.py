"""JSON to typed values, with errors that name the field, its value and what is allowed.

The types are the caller's; this module does not know what requests mean.
"""

import difflib
import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from serving.errors import InvalidRequestProblem, NotJsonProblem, quoted

Decoded = TypeVar("Decoded")

SMALL_BYTES = 64 << 10
"""Bodies up to it are decoded at once."""
_MORE = 2_000  # values, lists and objects of any body, beside those that a limit allows


class Most(NamedTuple):
    """What a body may have at most, beside a few of each."""

    values: int = 0
    """Of its lists and objects, all together."""
    lists: int = 0


_NOTHING = Most()


def decode(
    decoder: "msgspec.json.Decoder[Decoded]",
    body: bytes | bytearray,
    *,
    example: str = '{"seeds": [1, 2]}',
    most: Most = _NOTHING,
) -> Decoded:
    """Decodes a JSON body.

    Args:
        decoder: of its type.
        body: the bytes.
        example: a body for the error that a client gets who sent no JSON.
        most: what limits allow it to have.

    Raises:
        NotJsonProblem: the body isn't JSON.
        InvalidRequestProblem: a field is unknown, or has the wrong type or range; or there are
            more values than any request may have.
    """
    if len(body) > SMALL_BYTES:
        check_values(body, most)
    try:
        try:
            return decoder.decode(body)
        except msgspec.ValidationError as error:
            plain = msgspec.json.decode(body)  # raises if the rest of the body is no JSON
            raise InvalidRequestProblem(in_words(str(error), decoder.type, plain)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        finite = b"NaN" in body or b"Infinity" in body
        hint = "JSON knows neither NaN nor Infinity, " if finite else ""
        raise NotJsonProblem(
            f"the body can't be read as JSON: {error}; {hint}send for example {example}"
        ) from None


def check_values(body: bytes | bytearray, most: Most = _NOTHING) -> None:
    """Refuses a body with too many values, without decoding it.

    Millions of values are seconds in which nobody else is answered, whatever is said of them
    afterwards. Each but a list's first has a comma before it, and no list goes without a bracket.

    Raises:
        InvalidRequestProblem: there are more than `most`.
    """
    marks = ((b",", "values", most.values), (b"[", "lists", most.lists), (b"{", "objects", 0))
    for mark, what, limit in marks:
        num, allowed = body.count(mark), limit + _MORE
        if num > allowed:
            raise InvalidRequestProblem(
                f"the body has about {num} {what}, this server's limits allow {allowed} in one "
                "request; split the request"
            )


def in_words(text: str, kind: Any, plain: Any) -> str:
    """Rewrites a message of msgspec so that it names the field, its value, and what is allowed.

    Args:
        text: the message.
        kind: the struct that was to be decoded.
        plain: the values that were sent.
    """
    message, _, path = text.partition(" - at `$")
    path = path.rstrip("`").lstrip(".")
    hints = get_type_hints(kind, include_extras=True) if isinstance(kind, type) else {}
    unknown = re.fullmatch("Object contains unknown field `(.*)`", message, re.DOTALL)
    if unknown:
        where = f"{path}: " if path else ""
        return f"{where}field {quoted(unknown[1])} is not known" + _known(unknown[1], path, hints)
    if not path:
        return message
    try:
        value = quoted(_at(plain, path))
    except (LookupError, TypeError):  # within a dictionary msgspec names no key
        return f"{path}: {message}"
    if message.startswith("Invalid enum value"):
        allowed = ", ".join(_words(hints.get(path)))
        return f"{path} is {value}, allowed are {allowed}" if allowed else f"{path}: {message}"
    ranged = re.fullmatch("Expected `(int|float)` ([<>]=?) (.*)", message)
    if ranged:
        allowed = _range(hints.get(path)) or f"those {ranged[2]} {ranged[3]}"
        return f"{path} is {value}, allowed are {allowed}"
    return f"{path} is {value}: {message}"


def _known(name: str, path: str, hints: dict[str, Any]) -> str:
    if path or not hints:
        return "; leave it out"
    near = difflib.get_close_matches(name[:40], hints, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f", there are {', '.join(hints)}{hint}"


def _at(plain: Any, path: str) -> Any:
    """Returns the value at a path as msgspec writes it: `seeds[1]`, `inputs[0].shape`."""
    for name, index in re.findall(r"\.?([^.\[\]]+)|\[(\d+)\]", path):
        plain = plain[int(index)] if index else plain[name]
    return plain


def _words(kind: Any) -> list[str]:
    """Returns the words of a Literal, wherever in the annotation it is."""
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    return [word for part in get_args(kind) for word in _words(part)]


def _range(kind: Any) -> str:
    """Describes the numbers that the bounds in an annotation allow."""
    metas = list(_metas(kind))
    least = next((meta.ge for meta in metas if meta.ge is not None), None)
    most = next((meta.le for meta in metas if meta.le is not None), None)
    if least is None or most is None:
        return "" if least is None else f"{least:g} and more"
    return f"{least:.12g} .. {most:.12g}"


def _metas(kind: Any) -> Iterator[msgspec.Meta]:
    for part in get_args(kind):
        if isinstance(part, msgspec.Meta):
            yield part
        else:
            yield from _metas(part)
