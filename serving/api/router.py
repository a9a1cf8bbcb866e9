"""Finds the handler of a request by path and method, directly on ASGI; knows nothing of models.

This is the outermost ASGI application: it takes every request before a framework's stack of
middlewares does, which costs more than making a small image.
"""

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from serving.api.operations import Operation
from serving.connection.asgi import HOLD, PARAMS, PEER
from serving.connection.request_head import SLASH
from serving.errors import ClientGoneError, MethodProblem, Problem, UnknownRouteProblem, quoted
from serving.http.auth import AccessControl, check_scope
from serving.http.cors import preflight_headers
from serving.http.messages import (
    UNFORESEEN,
    Headers,
    Receive,
    Request,
    Response,
    Scope,
    Send,
)
from serving.http.origins import Origins
from serving.keys.key import ADMIN, GENERATE
from serving.observability.requests import RequestRecorder, log_failure

Handler = Callable[[Request], Awaitable[Response]]

_ADMIN, _GENERATE = frozenset((ADMIN,)), frozenset((GENERATE,))
_READ = _ADMIN | _GENERATE  # what is served, and how
_ALL_METHODS = b"DELETE, GET, HEAD, OPTIONS, POST"
_LISTS = frozenset((b"accept", b"forwarded", b"if-none-match", b"x-forwarded-for"))


@dataclass(frozen=True, slots=True)
class Route:
    """A method of a path, its handler, and how openapi.json describes it.

    `{name}` in the path matches one segment. GET handles HEAD too, unless HEAD has its own route.
    """

    method: str
    path: str
    handler: Handler
    operation: Operation | None = None
    """None leaves the route out of openapi.json."""
    changes_state: bool = False
    """Whether it changes what is served: web pages of other origins may not ask for that."""
    makes_images: bool = False
    """Whether a request is one for images, and counts as such."""
    scope: str = ""
    """The scope of keys that may ask for it, where that doesn't follow from the rest."""

    @property
    def scopes(self) -> frozenset[str]:
        """What of a key's scopes allows it, any of them."""
        if self.scope:
            return frozenset((self.scope,))
        if self.changes_state:
            return _ADMIN
        return _GENERATE if self.makes_images else _READ


Resource = dict[str, Route]
"""The routes of one path, by method; at least one."""


class Router:
    """Passes each request to the handler of its path, and turns exceptions into problems."""

    def __init__(
        self,
        routes: Iterable[Route],
        *,
        root_path: str = "",
        access: AccessControl,
        open_paths: frozenset[str],
        origins: Origins,
        recorder: RequestRecorder,
        problem_responses: dict[str, Callable[[Problem], Response]],
    ) -> None:
        """Sets up.

        Args:
            routes: all routes, in any order.
            root_path: where a proxy shows the server; its paths come without.
            access: the valid API keys.
            open_paths: paths that need no key.
            origins: the web pages that may change what is served.
            recorder: logs and counts every request.
            problem_responses: how problems are rendered below a path's first segment, such as /v2;
                elsewhere they are problem documents.
        """
        resources: dict[str, Resource] = {}
        for route in routes:
            resources.setdefault(route.path, {})[route.method] = route
        self._resources = resources
        self._exact = {path: found for path, found in resources.items() if "{" not in path}
        self._root_path = root_path
        self._patterns = [
            (path, _pattern(path), found) for path, found in resources.items() if "{" in path
        ]
        self._access = access
        self._open_paths = open_paths
        self._origins = origins
        self._recorder = recorder
        self._problem_responses = problem_responses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one HTTP request, as ASGI asks."""
        path, header = scope["path"], _header_of(scope)
        context = self._recorder.begin("other", str(scope["method"]), header)
        context.peer, context.target = scope.get(PEER, ""), _target(scope)
        context.hold = scope.get(HOLD)
        request = Request(scope, receive, context)
        try:
            response = await self._respond_to(request)
        except Problem as problem:
            response = self._problem_response(path, problem)
        except ClientGoneError:
            self._recorder.end(context, None)
            return
        except Exception as error:
            log_failure(context, error)
            response = self._problem_response(path, Problem(UNFORESEEN))
        headers = self._recorder.headers(context, response)
        await _respond(response, headers, send, with_body=context.method != "HEAD")
        self._recorder.end(context, response)

    async def _respond_to(self, request: Request) -> Response:
        path, context = request.scope["path"], request.context
        if not path:  # addresses in a page are relative: they must not lose the last segment
            location = (b"location", f"{self._root_path}/".encode("ascii"))
            return Response(b"", "text/plain", 308, (location,))
        preflight = self._recorder.cors.on and context.method == "OPTIONS"
        # Preflights carry no key.
        if self._access.keys_required and path not in self._open_paths and not preflight:
            context.key = self._access.check(request.header)
        if path == "*":  # OPTIONS alone: the server as a whole
            return Response(b"", "text/plain", 200, ((b"allow", _ALL_METHODS),))
        context.route, resource = self._find(path, request)
        if preflight:
            return Response(b"", "text/plain", 200, preflight_headers(_allow(resource)))
        route = _route_of(context.route, resource, context.method)
        # A HEAD that GET answers asks for no image.
        context.makes_images = route.makes_images and route.method == context.method
        check_scope(context.key, route.scopes)
        if route.changes_state:
            self._origins.check(request.header)
        return await route.handler(request)

    def _problem_response(self, path: str, problem: Problem) -> Response:
        return self._problem_responses.get(_first_segment(path), Response.problem)(problem)

    def _find(self, path: str, request: Request) -> tuple[str, Resource]:
        """The resource of a path, and that path as its routes have it."""
        given = request.scope.get(PARAMS)
        if given is not None:  # from within: the path is a route's own, and names nothing
            request.params = given
            return path, self._resources[path]
        resource = self._exact.get(path)
        if resource is not None:
            return path, resource
        for template, pattern, candidate in self._patterns:
            match = pattern.fullmatch(path)
            if match is not None and SLASH not in path:  # one in a name is part of no name
                request.params = match.groupdict()
                return template, candidate
        near = ", ".join(self._near(path))
        raise UnknownRouteProblem(f"path is {quoted(path)}; there are: {near}")

    def _near(self, path: str) -> list[str]:
        """Lists the paths with the same first segment; if there are none, all first segments."""
        known = sorted([*self._exact, *(template for template, _, _ in self._patterns)])
        near = [route for route in known if route.startswith(_first_segment(path) + "/")]
        segments = {_first_segment(route) for route in known}
        deep = {_first_segment(route) for route in known if _first_segment(route) != route}
        return near or sorted(part + "/..." if part in deep else part for part in segments)


async def _respond(response: Response, headers: Headers, send: Send, *, with_body: bool) -> None:
    start = response.head(headers)
    await send({"type": "http.response.start", "status": response.status, "headers": start})
    if response.pieces is not None and with_body:
        await send({"type": "http.response.body", "pieces": response.pieces})
        return
    await send({"type": "http.response.body", "body": response.body if with_body else b""})


def _target(scope: Scope) -> bytes:
    path, query = bytes(scope.get("raw_path", b"")), bytes(scope.get("query_string", b""))
    return path + b"?" + query if query else path


def _header_of(scope: Scope) -> Callable[[bytes], bytes | None]:
    """Makes a look-up of headers by lower-case name: the first; of lists all (RFC 9110, 5.3)."""

    def header(name: bytes) -> bytes | None:
        found = [bytes(value) for key, value in scope["headers"] if key == name]
        if name in _LISTS:
            return b", ".join(found) if found else None
        return found[0] if found else None

    return header


def _route_of(path: str, resource: Resource, method: str) -> Route:
    """The route of a method; GET's is HEAD's too, unless that has its own.

    Raises:
        MethodProblem: there is none.
    """
    route = resource.get(method)
    if route is None and method == "HEAD":
        route = resource.get("GET")
    if route is None:
        allow = _allow(resource)
        raise MethodProblem(
            f"method is {quoted(method)[1:-1]} at {path}; allowed are: {allow}",
            headers=((b"allow", allow.encode("ascii")),),
        )
    return route


def _allow(resource: Resource) -> str:
    """The value of an Allow header."""
    methods = set(resource) | ({"HEAD"} if "GET" in resource else set())
    return ", ".join(sorted(methods))


def _pattern(path: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", path)
    return re.compile(
        "".join(
            re.escape(part) if index % 2 == 0 else f"(?P<{part}>[^/]+)"
            for index, part in enumerate(parts)
        )
    )


def _first_segment(path: str) -> str:
    """Returns /v1 for /v1/models."""
    return "/" + path[1:].partition("/")[0]
