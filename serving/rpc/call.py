"""One call over gRPC, answered by the route of the same meaning over HTTP.

So both have the same keys, scopes, limits, deadlines, metrics, traces and lines of log, and no rule
has to be written twice. What HTTP says by headers comes as metadata: authorization, x-request-id,
x-priority, traceparent. The deadline is gRPC's own.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import msgspec

from serving.connection.asgi import HOLD, PARAMS, PEER
from serving.errors import Problem
from serving.http.messages import ASGIApp, Message
from serving.http2.hpack import Fields
from serving.requests.deadlines import TIMEOUT
from serving.rpc.exchange import Call
from serving.rpc.messages import RpcError, Status

_PASSED_ON = frozenset(
    (
        *(b"authorization", b"forwarded", b"traceparent", b"x-forwarded-for", b"x-priority"),
        b"x-request-id",
    )
)
_STATUS = {
    400: Status.INVALID_ARGUMENT,
    401: Status.UNAUTHENTICATED,
    403: Status.PERMISSION_DENIED,
    404: Status.NOT_FOUND,
    405: Status.UNIMPLEMENTED,
    409: Status.FAILED_PRECONDITION,
    413: Status.RESOURCE_EXHAUSTED,
    429: Status.RESOURCE_EXHAUSTED,
    501: Status.UNIMPLEMENTED,
    503: Status.UNAVAILABLE,
    504: Status.DEADLINE_EXCEEDED,
}


@dataclass(frozen=True, slots=True)
class Target:
    """A route as it is documented, and what its path names.

    A name never becomes a part of a path that is matched: `stats` and `article/config` are names.
    """

    route: str
    params: dict[str, str] = field(default_factory=dict)

    def raw_path(self) -> bytes:
        """The path as a client of HTTP would write it, for the log."""
        written = {name: quote(value, safe="") for name, value in self.params.items()}
        return self.route.format(**written).encode("ascii")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a route has answered."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def is_success(self) -> bool:
        """Whether it is no problem."""
        return self.status < 400

    def json(self) -> Any:
        """The body, decoded."""
        return msgspec.json.decode(self.body)

    @property
    def problem(self) -> str:
        """What is wrong, in words."""
        return str(self.json()["error"])


class Caller:
    """Passes calls on to the routes."""

    def __init__(self, app: ASGIApp, most_ms: int) -> None:
        """app: the routes. most_ms: the longest deadline."""
        self._app = app
        self._most_ms = most_ms
        self._going_on: set[asyncio.Task[None]] = set()

    async def ask(
        self,
        call: Call,
        method: str,
        target: Target,
        body: bytes = b"",
        *headers: tuple[bytes, bytes],
    ) -> Answer:
        """Has a route answer; where the client leaves, its images are made no longer.

        Args:
            call: whose metadata says the rest.
            method: GET or POST.
            target: the route.
            body: of the request.
            headers: beside those of the metadata.
        """
        gone = asyncio.Event()
        messages: list[Message] = []
        has_body = True

        async def receive() -> Message:
            nonlocal has_body
            if has_body:
                has_body = False
                return {"type": "http.request", "body": body, "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            messages.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": target.route,
            "raw_path": target.raw_path(),
            PARAMS: target.params,
            "query_string": b"",
            "headers": [*headers_of(call, self._most_ms), *headers],
            HOLD: call.stream.hold,
            PEER: call.peer,
        }
        task: asyncio.Task[None] = asyncio.ensure_future(self._app(scope, receive, send))
        self._going_on.add(task)
        task.add_done_callback(self._going_on.discard)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            gone.set()
            raise
        start, rest = messages
        return Answer(start["status"], dict(start["headers"]), rest["body"])


def headers_of(call: Call, most_ms: int) -> Fields:
    """What a call's metadata says of headers, and its deadline as they say it."""
    found = tuple(field for field in call.fields if field[0] in _PASSED_ON)
    left_ms = call.left_ms()
    if left_ms < most_ms:
        found += ((TIMEOUT, b"%d" % max(1, int(left_ms))),)
    return found


def refusal_of(answer: Answer) -> RpcError:
    """What ends a call as a problem ends the request over HTTP."""
    wait = answer.headers.get(b"retry-after")
    trailing = () if wait is None else ((b"retry-after", wait),)
    return RpcError(_STATUS.get(answer.status, Status.INTERNAL), answer.problem, trailing)


def refusal_of_problem(problem: Problem) -> RpcError:
    """What ends a call as a problem ends the request over HTTP."""
    trailing = tuple(field for field in problem.headers if field[0] == b"retry-after")
    return RpcError(_STATUS.get(problem.status, Status.INTERNAL), problem.detail, trailing)


def of_model(name: str, version: str, end: str = "") -> Target:
    """A route of a model, or of one of its versions. end: the rest of its path."""
    if version:
        route = f"/v2/models/{{model}}/versions/{{version}}{end}"
        return Target(route, {"model": name, "version": version})
    return Target(f"/v2/models/{{model}}{end}", {"model": name})
