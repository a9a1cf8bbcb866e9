"""Which handler answers which path, straight on ASGI.

An outermost ASGI application of our own takes every request before a framework's stack does, which
costs more than making a small image. Knows nothing of models.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from serving.cors import preflight_headers
from serving.errors import MethodProblem, Problem, UnknownRouteProblem
from serving.gate import Gate
from serving.http import (
    UNFORESEEN,
    ClientGoneError,
    Exchange,
    Headers,
    Receive,
    Reply,
    Scope,
    Send,
    log_failure,
)
from serving.visits import Visits
from serving.wording import shown

Handler = Callable[[Exchange], Awaitable[Reply]]

_LISTS = frozenset((b"accept", b"if-none-match"))


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
    """Answers what has a route, and refuses the rest in words."""

    def __init__(
        self,
        routes: list[Route],
        *,
        gate: Gate,
        open_paths: frozenset[str],
        visits: Visits,
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
        # Preflights carry no key.
        if self._gate.closed and path not in self._open_paths and not preflight:
            visit.key = self._gate.check(exchange.header)
        route = self._find(path, exchange)
        visit.route = route.path
        if preflight:
            return Reply(b"", "text/plain", 200, preflight_headers(route.allow))
        return await self._handler(route, visit.method)(exchange)

    def _told(self, path: str, problem: Problem) -> Reply:
        return self._wordings.get(_room_of(path), Reply.problem)(problem)

    def _find(self, path: str, exchange: Exchange) -> Route:
        route = self._exact.get(path)
        if route is not None:
            return route
        for pattern, candidate in self._patterns:
            match = pattern.fullmatch(path)
            if match is not None:
                exchange.params = match.groupdict()
                return candidate
        near = ", ".join(self._near(path))
        raise UnknownRouteProblem(f"path is {shown(path)}; there are: {near}")

    def _near(self, path: str) -> list[str]:
        """The routes beside one that isn't there; elsewhere, the rooms of routes."""
        known = sorted([*self._exact, *(route.path for _, route in self._patterns)])
        near = [route for route in known if route.startswith(_room_of(path) + "/")]
        rooms = {_room_of(route) for route in known}
        deep = {_room_of(route) for route in known if _room_of(route) != route}
        return near or sorted(room + "/..." if room in deep else room for room in rooms)

    def _handler(self, route: Route, method: str) -> Handler:
        handler = route.handlers.get("GET" if method == "HEAD" else method)
        if handler is None:
            raise MethodProblem(
                f"method is {shown(method)[1:-1]} at {route.path}; allowed are: {route.allow}",
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


def _header_of(scope: Scope) -> Callable[[bytes], bytes | None]:
    """Finds the first header of a lower-case name; of those that are lists, all (RFC 9110, 5.3)."""

    def header(name: bytes) -> bytes | None:
        found = [bytes(value) for key, value in scope["headers"] if key == name]
        if name in _LISTS:
            return b", ".join(found) if found else None
        return found[0] if found else None

    return header


def _pattern(path: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", path)
    return re.compile(
        "".join(
            re.escape(part) if index % 2 == 0 else f"(?P<{part}>[^/]+)"
            for index, part in enumerate(parts)
        )
    )


def _room_of(path: str) -> str:
    """A path's first part: /v1 of /v1/models."""
    return "/" + path[1:].partition("/")[0]
