"""The little of HTTP that the routes need, straight on ASGI: exchanges, replies, a router.

An outermost ASGI application of our own takes every request before a framework's stack does, which
costs more than making a small image. Knows nothing of models.
"""

import dataclasses
import functools
import logging
import re
import time
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from prometheus_client import Counter, Histogram

from serving import metrics
from serving.errors import (
    PROBLEM_URI,
    InvalidRequestProblem,
    MethodProblem,
    Problem,
    TooLargeProblem,
    UnknownRouteProblem,
    UnsupportedEncodingProblem,
)

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
        return cls(body, "application/problem+json", problem.status, problem.headers)

    @classmethod
    def failure(cls) -> "Reply":
        """What a client hears of our own defect."""
        return cls.problem(Problem(UNFORESEEN))


@dataclass(slots=True)
class Exchange:
    """A request that is being answered."""

    scope: Scope
    receive: Receive
    params: dict[str, str] = field(default_factory=dict)

    @property
    def method(self) -> str:
        """GET, POST ..."""
        return str(self.scope["method"])

    def header(self, name: bytes) -> bytes | None:
        """The first header of a lower-case name."""
        for key, value in self.scope["headers"]:
            if key == name:
                return bytes(value)
        return None

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
            ClientGoneError: the client left before its end.
        """
        length = self.header(b"content-length")
        if length is not None and length.isdigit() and int(length) > max_bytes:
            raise _too_large(int(length), max_bytes)
        coding = (self.header(b"content-encoding") or b"identity").strip().lower()
        if coding != b"identity":
            return inflated(await self._plain_body(max_bytes), coding, max_bytes)
        return await self._plain_body(max_bytes)

    async def _plain_body(self, max_bytes: int) -> bytes | bytearray:
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
    """Answers what has a route, passes `fallthrough` paths on, and refuses the rest in words."""

    def __init__(
        self,
        routes: list[Route],
        inner: ASGIApp,
        fallthrough: frozenset[str],
        draining: Callable[[], bool],
        wordings: dict[str, Callable[[Problem], Reply]],
    ) -> None:
        """Sets up.

        Args:
            routes: what is answered here.
            inner: has the fallthrough paths.
            fallthrough: paths that are passed on.
            draining: true where connections should end.
            wordings: how a problem is told under a path's first segment; problem documents else.
        """
        self._exact = {route.path: route for route in routes if "{" not in route.path}
        self._patterns = [(_pattern(r.path), r) for r in routes if "{" in r.path]
        self._inner = inner
        self._fallthrough = fallthrough
        self._draining = draining
        self._wordings = wordings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Part of ASGI."""
        path = scope["path"]
        if path in self._fallthrough:
            await self._inner(scope, receive, send)
            return
        started = time.perf_counter()
        exchange = Exchange(scope, receive)
        route, method = None, exchange.method
        try:
            route = self._find(path, exchange)
            reply = await self._handler(route, method)(exchange)
        except Problem as problem:
            reply = self._told(path, problem)
        except ClientGoneError:
            observe(_name(route), method, 499, started)
            return
        except Exception:
            logger.exception("unhandled exception at %s %s", method, path)
            reply = self._told(path, Problem(UNFORESEEN))
        if self._draining() and CLOSE not in reply.headers:
            reply = dataclasses.replace(reply, headers=(*reply.headers, CLOSE))
        await _respond(reply, send, with_body=method != "HEAD")
        observe(_name(route), method, reply.status, started)

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


async def _respond(reply: Reply, send: Send, *, with_body: bool) -> None:
    headers = list(reply.headers)
    if reply.status != 304:
        headers.append((b"content-type", reply.media_type.encode("ascii")))
    if reply.sized:
        headers.append((b"content-length", str(len(reply.body)).encode("ascii")))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body if with_body else b""})


def observe(route: str, method: str, status: int, started: float) -> None:
    """Counts an answer; started is perf_counter's time at the request's head."""
    # A client may invent methods; each label value lives for ever.
    method = method if method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS") else "other"
    requests, latency = _metrics_of(route, method, status)
    requests.inc()
    latency.observe(time.perf_counter() - started)


def _name(route: Route | None) -> str:
    return route.path if route is not None else "other"


@functools.cache
def _metrics_of(path: str, method: str, status: int) -> tuple[Counter, Histogram]:
    return metrics.REQUESTS.labels(path, method, str(status)), metrics.LATENCY.labels(path)


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
