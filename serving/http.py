"""The little of HTTP that the routes need, straight on ASGI: exchanges, replies, a router.

An outermost ASGI application of our own takes every request before a framework's stack does, which
costs more than making a small image. Knows nothing of models.
"""

import asyncio
import logging
import re
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import msgspec

from serving import logs
from serving.cors import preflight_headers
from serving.errors import (
    PROBLEM_URI,
    InvalidRequestProblem,
    MethodProblem,
    Problem,
    SlowRequestProblem,
    TooLargeProblem,
    UnknownRouteProblem,
    UnsupportedEncodingProblem,
)
from serving.gate import Gate

if TYPE_CHECKING:
    from serving.visits import Visit, Visits

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
                    f"query parameter {name!r} ({value!r}) is not known; "
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
        if length is not None and length.isdigit() and int(length) > max_bytes:
            raise _too_large(int(length), max_bytes)
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


Handler = Callable[[Exchange], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Route:
    """A path with its handlers by method. `{name}` in the path matches one segment."""

    path: str
    handlers: dict[str, Handler]

    @property
    def allow(self) -> str:
        """The value of an Allow header."""
        methods = set(self.handlers) | ({"HEAD"} if "GET" in self.handlers else set())
        return ", ".join(sorted(methods))


class Router:
    """Answers what has a route, borrows `fallthrough` paths' answers, refuses the rest in words."""

    def __init__(
        self,
        routes: list[Route],
        *,
        gate: Gate,
        open_paths: frozenset[str],
        visits: "Visits",
        read_timeout_s: float,
        wordings: dict[str, Callable[[Problem], Reply]],
    ) -> None:
        """Sets up.

        Args:
            routes: what is answered here.
            gate: lets in.
            open_paths: what it lets in without a key.
            visits: what every request meets.
            read_timeout_s: within it a body must have come.
            wordings: how a problem is told under a path's first segment; problem documents else.
        """
        self._exact = {route.path: route for route in routes if "{" not in route.path}
        self._patterns = [(_pattern(r.path), r) for r in routes if "{" in r.path]
        self._gate = gate
        self._open_paths = open_paths
        self._visits = visits
        self._read_timeout_s = read_timeout_s
        self._wordings = wordings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Part of ASGI."""
        path, header = scope["path"], _header_of(scope)
        visit = self._visits.open("other", str(scope["method"]), header)
        exchange = Exchange(scope, receive, visit, self._read_timeout_s)
        try:
            reply = await self._reply(exchange)
        except Problem as problem:
            reply = self._told(path, problem)
        except ClientGoneError:
            self._visits.close(visit, None)
            return
        except Exception as error:
            log_failure(visit, error)
            reply = self._told(path, Problem(UNFORESEEN))
        headers = self._visits.headers(visit, reply)
        await _respond(reply, headers, send, with_body=visit.method != "HEAD")
        self._visits.close(visit, reply)

    async def _reply(self, exchange: Exchange) -> Reply:
        path, visit = exchange.scope["path"], exchange.visit
        preflight = self._visits.cors.on and visit.method == "OPTIONS"
        if (
            self._gate.closed and path not in self._open_paths and not preflight
        ):  # preflights carry no key
            visit.key = self._gate.check(exchange.header)
        route = self._find(path, exchange)
        visit.route = route.path
        if preflight:
            return Reply(b"", "text/plain", 200, preflight_headers(route.allow))
        return await self._handler(route, visit.method)(exchange)

    def _told(self, path: str, problem: Problem) -> Reply:
        return self._wordings.get("/" + path[1:].partition("/")[0], Reply.problem)(problem)

    def _find(self, path: str, exchange: Exchange) -> Route:
        route = self._exact.get(path)
        if route is not None:
            return route
        for pattern, candidate in self._patterns:
            match = pattern.fullmatch(path)
            if match is not None:
                exchange.params = match.groupdict()
                return candidate
        known = [*self._exact, *(route.path for _, route in self._patterns)]
        raise UnknownRouteProblem(f"path is {path!r}; there are: {', '.join(sorted(known))}")

    def _handler(self, route: Route, method: str) -> Handler:
        handler = route.handlers.get("GET" if method == "HEAD" else method)
        if handler is None:
            raise MethodProblem(
                f"method is {method} at {route.path}; allowed are: {route.allow}",
                headers=((b"allow", route.allow.encode("ascii")),),
            )
        return handler


async def _respond(reply: Reply, headers: Headers, send: Send, *, with_body: bool) -> None:
    start = list(headers)
    if reply.status != 304:
        start.append((b"content-type", reply.media_type.encode("ascii")))
    if reply.sized:
        start.append((b"content-length", str(len(reply.body)).encode("ascii")))
    await send({"type": "http.response.start", "status": reply.status, "headers": start})
    await send({"type": "http.response.body", "body": reply.body if with_body else b""})


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


def _header_of(scope: Scope) -> Callable[[bytes], bytes | None]:
    """Finds the first header of a lower-case name."""

    def header(name: bytes) -> bytes | None:
        for key, value in scope["headers"]:
            if key == name:
                return bytes(value)
        return None

    return header


def _pattern(path: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", path)
    return re.compile(
        "".join(
            re.escape(part) if index % 2 == 0 else f"(?P<{part}>[^/]+)"
            for index, part in enumerate(parts)
        )
    )


def inflated(body: bytes | bytearray, coding: bytes, max_bytes: int) -> bytes:
    """A compressed body's content; stops inflating where it grows too large.

    Raises:
        Problem: see `Exchange.body`.
    """
    wbits = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}.get(coding)
    if wbits is None:
        shown = coding[:40].decode("latin-1")
        raise UnsupportedEncodingProblem(
            f"Content-Encoding is {shown!r}, allowed are gzip, deflate and identity"
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
