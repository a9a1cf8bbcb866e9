"""Requests, responses and bodies, directly on ASGI: as much of HTTP as handlers need."""

import re
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from serving.errors import (
    PROBLEM_URI,
    ClientGoneError,
    InvalidRequestProblem,
    Problem,
    SlowRequestProblem,
    TooLargeProblem,
    UnsupportedEncodingProblem,
    quoted,
)
from serving.http.context import RequestContext

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]

UNFORESEEN = "an unexpected error; it was logged, please report it"
CLOSE = (b"connection", b"close")
"""The header that ends a connection after the response."""


@dataclass(frozen=True, slots=True)
class Response:
    """A complete response."""

    body: bytes
    media_type: str = "application/json"
    status: int = 200
    headers: Headers = ()
    sized: bool = True
    """False if it has no Content-Length: 304, or HEAD of an image that wasn't made."""
    reason: str = ""
    """The last part of a problem's type; empty for other responses."""
    is_clients: bool = True
    """Whether the client brought the problem about."""
    pieces: AsyncGenerator[bytes] | None = None
    """The body where it is too long for memory; `headers` then have its Content-Length."""

    @property
    def num_bytes(self) -> int:
        """Of the body."""
        if self.pieces is None:
            return len(self.body)
        return int(dict(self.headers)[b"content-length"])

    def head(self, headers: Headers) -> Headers:
        """These headers, and those of the body."""
        if self.status != 304:
            headers += ((b"content-type", self.media_type.encode("ascii")),)
        if self.sized and self.pieces is None:
            headers += ((b"content-length", b"%d" % len(self.body)),)
        return headers

    @classmethod
    def json(cls, value: Any, *, status: int = 200, headers: Headers = ()) -> "Response":
        """Makes a response of a value as JSON."""
        return cls(msgspec.json.encode(value), "application/json", status, headers)

    @classmethod
    def problem(cls, problem: Problem) -> "Response":
        """Makes a response of a problem document (RFC 9457)."""
        content = {
            "type": PROBLEM_URI + problem.slug,
            "title": problem.title,
            "status": problem.status,
            "detail": problem.detail,
        }
        body = msgspec.json.encode(content)
        media_type = "application/problem+json"
        return cls.of_problem(problem, body, media_type)

    @classmethod
    def of_problem(cls, problem: Problem, body: bytes, media_type: str) -> "Response":
        """Makes a response of a problem that is written already."""
        return cls(
            body,
            media_type,
            problem.status,
            problem.headers,
            reason=problem.slug,
            is_clients=problem.is_clients,
        )

    @classmethod
    def failure(cls) -> "Response":
        """Makes the response that a client gets when the server has a defect."""
        return cls.problem(Problem(UNFORESEEN))


@dataclass(slots=True)
class Request:
    """A request that is being answered."""

    scope: Scope
    receive: Receive
    context: RequestContext
    params: dict[str, str] = field(default_factory=dict)

    @property
    def method(self) -> str:
        """The method, such as GET."""
        return self.context.method

    def header(self, name: bytes) -> bytes | None:
        """Returns the value of a header by its lower-case name."""
        return self.context.header(name)

    def query(self, *allowed: str, pattern: re.Pattern[str] | None = None) -> dict[str, str]:
        """Returns the query's parameters. allowed: their names; pattern: of further ones.

        Raises:
            InvalidRequestProblem: a parameter is unknown or given twice.
        """
        text = self.scope["query_string"].decode("latin-1")
        pairs = parse_qsl(text, keep_blank_values=True)
        for name, value in pairs:
            if name not in allowed and not (pattern and pattern.fullmatch(name)):
                raise InvalidRequestProblem(
                    f"query parameter {quoted(name)} ({quoted(value)}) is not known; "
                    f"allowed are: {', '.join(allowed) or 'none'}"
                )
        values = dict(pairs)
        if len(values) != len(pairs):
            raise InvalidRequestProblem("a query parameter is given twice; give it once")
        return values

    async def body(self, max_bytes: int) -> bytes | bytearray:
        """Returns the whole body, decompressed.

        Raises:
            TooLargeProblem: it has more than max_bytes, or announces or decompresses to more.
            UnsupportedEncodingProblem: it is compressed by other means than gzip or deflate.
            InvalidRequestProblem: the compressed data is damaged.
            SlowRequestProblem: it did not come in time.
            ClientGoneError: the client left before its end.
        """
        length = self.header(b"content-length")
        # The reader has checked that it is a number; it may have thousands of digits, for which
        # int() takes long.
        announced = int((length or b"").lstrip(b"0")[:19] or b"0")
        if announced > max_bytes:
            raise too_large(announced, max_bytes)
        body = await self._read(max_bytes)
        coding = (self.header(b"content-encoding") or b"identity").strip().lower()
        return body if coding == b"identity" else inflated(body, coding, max_bytes)

    async def _read(self, max_bytes: int) -> bytes | bytearray:
        message = await self.receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            whole: bytes = _bounded(message.get("body", b""), max_bytes)
            return whole
        collected = bytearray()
        while True:
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            collected += message.get("body", b"")
            _bounded(collected, max_bytes)
            if not message.get("more_body", False):
                return collected
            message = await self.receive()


def slow_request(timeout_s: float) -> SlowRequestProblem:
    """Returns the problem of a request that did not come in time."""
    return SlowRequestProblem(
        f"the request was not complete after {timeout_s:g} s; send it in one go",
        headers=(CLOSE,),
    )


def inflated(body: bytes | bytearray, coding: bytes, max_bytes: int) -> bytes:
    """Decompresses a body, and stops when it grows larger than max_bytes.

    Raises:
        Problem: as for `Request.body`.
    """
    wbits = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}.get(coding)
    if wbits is None:
        raise UnsupportedEncodingProblem(
            f"Content-Encoding is {quoted(coding)}, allowed are gzip, deflate and identity"
        )
    inflate = zlib.decompressobj(wbits)
    try:
        content = inflate.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise InvalidRequestProblem(
            f"the {coding.decode()} body can't be inflated: {error}"
        ) from None
    if len(content) > max_bytes:
        raise too_large(len(content), max_bytes)
    if not inflate.eof or inflate.unused_data:
        raise InvalidRequestProblem(f"the {coding.decode()} body is cut off, or followed by more")
    return content


def _bounded(body: Any, max_bytes: int) -> Any:
    if len(body) > max_bytes:
        raise too_large(len(body), max_bytes)
    return body


def too_large(num_bytes: int, max_bytes: int) -> TooLargeProblem:
    """What a client hears whose body is not read to its end."""
    # The rest of the body is not read: the connection can't be used again.
    return TooLargeProblem(
        f"the body has {num_bytes} bytes or more, allowed are {max_bytes}; split the request",
        headers=(CLOSE,),
    )
