"""The head of a generate request, where it is plain enough for the short road of `hotpath`."""

from dataclasses import dataclass

_STARTS = {
    b"POST /v1/generate HTTP/1.1\r\n": "/v1/generate",
    b"POST /predict HTTP/1.1\r\n": "/predict",
}
_SPECIAL = frozenset(
    (b"content-encoding", b"transfer-encoding", b"expect", b"upgrade", b"te", b"trailer")
)
MAX_PLAIN_BYTES = 16 << 10
"""Longer heads are no plain ones."""


@dataclass(slots=True)
class Head:
    """A request's head, read."""

    route: str
    headers: dict[bytes, bytes]
    body_start: int
    body_end: int


def read_head(data: bytes) -> Head | None:
    """The head of a plain generate request, or None where uvicorn should read it."""
    start = data.find(b"\r\n") + 2
    route = _STARTS.get(data[:start])
    end = data.find(b"\r\n\r\n", start - 2, MAX_PLAIN_BYTES)
    if route is None or end < 0:
        return None
    headers: dict[bytes, bytes] = {}
    for line in data[start:end].split(b"\r\n"):
        name, colon, value = line.partition(b":")
        name = name.lower()
        if not colon or name in headers or name in _SPECIAL or not _is_token(name):
            return None
        headers[name] = value.strip(b" \t")
    length = headers.get(b"content-length", b"")
    if not length.isdigit() or len(length) > 12 or b"host" not in headers:
        return None
    if headers.get(b"connection", b"keep-alive").lower() != b"keep-alive":
        return None
    return Head(route, headers, end + 4, end + 4 + int(length))


def _is_token(name: bytes) -> bool:
    return name.replace(b"-", b"").replace(b"_", b"").isalnum()
