"""The little of HTTP that handlers need, straight on ASGI: exchanges, replies, bodies.

Knows nothing of models and of routes (`serving.router`).
"""

import asyncio
import logging
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import msgspec

from serving import logs
from serving.errors import (
    PROBLEM_URI,
    InvalidRequestProblem,
    Problem,
    SlowRequestProblem,
    TooLargeProblem,
    UnsupportedEncodingProblem,
)
from serving.wording import shown

if TYPE_CHECKING:
    from serving.visits import Visit

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]

UNFORESEEN = "an unexpected error; it was logged, please report it"
CLOSE = (b"connection", b"close")
"""The header that ends a connection after its answer."""


class ClientGoneError(Exception):
    """The client closed the connection: there is nobody to answer."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, complete."""

    body: bytes
    media_type: str = "application/json"
    status: int = 200
    headers: Headers = ()
    sized: bool = True
    """False where there is no body whose length could be told: 304, HEAD of what wasn't made."""
    reason: str = ""
    """Of a problem: the last part of its type."""

    @classmethod
    def json(cls, value: Any, *, status: int = 200, headers: Headers = ()) -> "Reply":
        """A value as JSON."""
        return cls(msgspec.json.encode(value), "application/json", status, headers)

    @classmethod
    def problem(cls, problem: Problem) -> "Reply":
        """A problem document (RFC 9457)."""
        content = {
            "type": PROBLEM_URI + problem.slug,
            "title": problem.title,
            "status": problem.status,
            "detail": problem.detail,
        }
        body = msgspec.json.encode(content)
        media_type = "application/problem+json"
        return cls(body, media_type, problem.status, problem.headers, reason=problem.slug)

    @classmethod
    def failure(cls) -> "Reply":
        """What a client hears of our own defect."""
        return cls.problem(Problem(UNFORESEEN))


@dataclass(slots=True)
class Exchange:
    """A request that is being answered."""

    scope: Scope
    receive: Receive
    visit: "Visit"
    read_timeout_s: float
    params: dict[str, str] = field(default_factory=dict)

    @property
    def method(self) -> str:
        """GET, POST ..."""
        return self.visit.method

    def header(self, name: bytes) -> bytes | None:
        """The first header of a lower-case name."""
        return self.visit.header(name)

    def query(self, *allowed: str) -> dict[str, str]:
        """The query's parameters.

        Raises:
            InvalidRequestProblem: one is unknown or given twice.
        """
        text = self.scope["query_string"].decode("latin-1")
        pairs = parse_qsl(text, keep_blank_values=True)
        for name, value in pairs:
            if name not in allowed:
                raise InvalidRequestProblem(
                    f"query parameter {shown(name)} ({shown(value)}) is not known; "
                    f"allowed are: {', '.join(allowed) or 'none'}"
                )
        values = dict(pairs)
        if len(values) != len(pairs):
            raise InvalidRequestProblem("a query parameter is given twice; give it once")
        return values

    async def body(self, max_bytes: int) -> bytes | bytearray:
        """The whole body, inflated where it is compressed.

        Raises:
            TooLargeProblem: it is, announces to be, or inflates to more than max_bytes.
            UnsupportedEncodingProblem: it is compressed in another way than gzip or deflate.
            InvalidRequestProblem: what is compressed is damaged.
            SlowRequestProblem: it did not come in time.
            ClientGoneError: the client left before its end.
        """
        length = self.header(b"content-length")
        # The parser has seen that it fits 64 bits; zeros may still lead, thousands of them.
        announced = int((length or b"").lstrip(b"0") or b"0")
        if announced > max_bytes:
            raise _too_large(announced, max_bytes)
        try:
            async with asyncio.timeout(self.read_timeout_s):
                body = await self._read(max_bytes)
        except TimeoutError:
            raise slow_request(self.read_timeout_s) from None
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


def log_failure(visit: "Visit", error: BaseException) -> None:
    """Logs a defect of ours that a request brought to light."""
    request_id = visit.name_request()
    logger.error(
        "unhandled exception at %s %s",
        visit.method,
        visit.route,
        exc_info=error,
        extra=logs.fields(request_id=request_id),
    )


def slow_request(timeout_s: float) -> SlowRequestProblem:
    """What a client hears that sends too slowly."""
    return SlowRequestProblem(
        f"the request was not complete after {timeout_s:g} s; send it in one go",
        headers=(CLOSE,),
    )


def inflated(body: bytes | bytearray, coding: bytes, max_bytes: int) -> bytes:
    """A compressed body's content; stops inflating where it grows too large.

    Raises:
        Problem: see `Exchange.body`.
    """
    wbits = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}.get(coding)
    if wbits is None:
        raise UnsupportedEncodingProblem(
            f"Content-Encoding is {shown(coding)}, allowed are gzip, deflate and identity"
        )
    inflate = zlib.decompressobj(wbits)
    try:
        content = inflate.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise InvalidRequestProblem(
            f"the {coding.decode()} body can't be inflated: {error}"
        ) from None
    if len(content) > max_bytes:
        raise _too_large(len(content), max_bytes)
    if not inflate.eof or inflate.unused_data:
        raise InvalidRequestProblem(f"the {coding.decode()} body is cut off, or followed by more")
    return content


def _bounded(body: Any, max_bytes: int) -> Any:
    if len(body) > max_bytes:
        raise _too_large(len(body), max_bytes)
    return body


def _too_large(num_bytes: int, max_bytes: int) -> TooLargeProblem:
    # The rest of the body is not read: the connection can't be used again.
    return TooLargeProblem(
        f"the body has {num_bytes} bytes or more, allowed are {max_bytes}; split the request",
        headers=(CLOSE,),
    )
