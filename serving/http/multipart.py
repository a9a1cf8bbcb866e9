"""Bodies of multipart/form-data (RFC 7578): the parts of a body that is in memory already.

Text and files alike are bytes here; what they mean, the caller knows. The number of parts and the
length of their heads have bounds.
"""

import re
from typing import NamedTuple

from serving.errors import InvalidRequestProblem, quoted

MEDIA_TYPE = "multipart/form-data"
MAX_PARTS = 256
_MAX_HEAD_BYTES = 4096
_PARAMETER = re.compile(r';\s*([\w!#$%&\'*+.^`|~-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))')


class Part(NamedTuple):
    """One part."""

    name: str
    is_file: bool
    """Whether it came with the name of a file."""
    data: bytes


def is_multipart(content_type: bytes | None) -> bool:
    """Whether a header Content-Type says that the body has parts."""
    kind = (content_type or b"").partition(b";")[0].strip().lower()
    return kind == MEDIA_TYPE.encode()


def parts_of(body: bytes | bytearray, content_type: bytes | None) -> list[Part]:
    """Takes a body apart.

    Raises:
        InvalidRequestProblem: it is not what its Content-Type says.
    """
    boundary = _parameters((content_type or b"").decode("latin-1")).get("boundary", "")
    if not 1 <= len(boundary) <= 70:
        raise InvalidRequestProblem(
            f"Content-Type is {quoted(content_type or b'')}: its boundary must have 1 .. 70 "
            "characters; leave the header to the library that makes the body"
        )
    mark = b"--" + boundary.encode("latin-1")
    if not body.startswith(mark):
        raise _malformed("it doesn't begin with its boundary")
    parts: list[Part] = []
    position = len(mark)
    while body[position : position + 2] == b"\r\n":
        if len(parts) >= MAX_PARTS:
            raise _malformed(f"it has more than {MAX_PARTS} parts; split the request")
        start = position + 2
        head_end = body.find(b"\r\n\r\n", start - 2, start + _MAX_HEAD_BYTES)
        end = body.find(b"\r\n" + mark, max(head_end, start) + 2)
        if head_end < start or end < 0:
            raise _malformed("a part has no end, or no name")
        head = body[start:head_end].decode("latin-1")
        parts.append(_part(head, bytes(body[head_end + 4 : end])))
        position = end + 2 + len(mark)
    if body[position : position + 2] != b"--":
        raise _malformed("it is cut off")
    return parts


def _part(head: str, data: bytes) -> Part:
    for line in head.split("\r\n"):
        field, _, value = line.partition(":")
        if field.strip().lower() == "content-disposition":
            given = _parameters(value)
            if "name" in given:
                return Part(given["name"], "filename" in given, data)
    raise _malformed("a part has no name")


def _parameters(value: str) -> dict[str, str]:
    """The parameters of a header's value by lower-case name."""
    return {
        name.lower(): plain or re.sub(r"\\(.)", r"\1", within)
        for name, within, plain in _PARAMETER.findall(value)
    }


def _malformed(why: str) -> InvalidRequestProblem:
    return InvalidRequestProblem(f"the body can't be read as {MEDIA_TYPE}: {why}")
