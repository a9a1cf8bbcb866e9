"""One call over gRPC, answered by the route of the same meaning over HTTP.

So both have the same keys, scopes, limits, deadlines, metrics, traces and lines of log, and no rule
has to be written twice. What HTTP says by headers comes as metadata: authorization, x-request-id,
x-priority, traceparent. The deadline is gRPC's own.
"""

import asyncio
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

import grpc
import msgspec

from serving.connection.asgi import HOLD, PEER
from serving.http.memory import Hold, Memory
from serving.http.messages import ASGIApp, Message
from serving.http.proxies import UNIX
from serving.requests.deadlines import TIMEOUT

_PASSED_ON = frozenset(
    ("authorization", "forwarded", "traceparent", "x-forwarded-for", "x-priority", "x-request-id")
)
_SMALL_BYTES = 64 << 10  # bodies up to it are not counted, as over HTTP
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    405: grpc.StatusCode.UNIMPLEMENTED,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


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

    def __init__(self, app: ASGIApp, memory: Memory, most_ms: int) -> None:
        """Sets up.

        Args:
            app: the routes.
            memory: what all requests together may hold.
            most_ms: the longest deadline.
        """
        self._app = app
        self._memory = memory
        self._most_ms = most_ms
        self._going_on: set[asyncio.Task[None]] = set()

    async def ask(
        self,
        context: "grpc.aio.ServicerContext[Any, Any]",
        method: str,
        path: str,
        body: bytes = b"",
        *headers: tuple[bytes, bytes],
    ) -> Answer:
        """Has a route answer; where the client leaves, its images are made no longer.

        Args:
            context: of the call.
            method: GET or POST.
            path: of the route.
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

        hold = Hold(self._memory)
        if len(body) > _SMALL_BYTES and not hold.try_add(len(body)):
            return _overloaded(self._memory)
        scope = {
            "type": "http",
            "method": method,
            "path": unquote(path),
            "raw_path": path.encode("ascii"),
            "query_string": b"",
            "headers": [*self._headers(context), *headers],
            HOLD: hold,
            PEER: peer_of(context.peer()),
        }
        task: asyncio.Task[None] = asyncio.ensure_future(self._app(scope, receive, send))
        self._going_on.add(task)
        task.add_done_callback(functools.partial(self._end, hold))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            gone.set()
            raise
        start, rest = messages
        return Answer(start["status"], dict(start["headers"]), rest["body"])

    def header_of(
        self, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> Callable[[bytes], bytes | None]:
        """Makes a look-up of what a call's metadata says of headers: the first, as routes do."""
        found = dict(reversed(self._headers(context)))
        return found.get

    def _end(self, hold: Hold, task: "asyncio.Task[None]") -> None:
        self._going_on.discard(task)
        hold.release()

    def _headers(self, context: "grpc.aio.ServicerContext[Any, Any]") -> list[tuple[bytes, bytes]]:
        found = [
            (key.encode("ascii"), value if isinstance(value, bytes) else value.encode("latin-1"))
            for key, value in context.invocation_metadata() or ()
            if key in _PASSED_ON
        ]
        left_s = context.time_remaining()
        if left_s is not None and left_s * 1e3 < self._most_ms:
            found.append((TIMEOUT, b"%d" % max(1, int(left_s * 1e3))))
        return found


def _overloaded(memory: Memory) -> Answer:
    """As a connection over HTTP refuses a body that there is no memory for."""
    text = (
        f"{memory.held_bytes} bytes are held for clients, {memory.max_bytes} may be; "
        "try again in a moment"
    )
    return Answer(429, {b"retry-after": b"1"}, msgspec.json.encode({"error": text}))


async def refuse(context: "grpc.aio.ServicerContext[Any, Any]", answer: Answer) -> None:
    """Ends a call as a problem ends it over HTTP; never returns."""
    wait = answer.headers.get(b"retry-after")
    trailing = () if wait is None else (("retry-after", wait.decode("ascii")),)
    code = _CODES.get(answer.status, grpc.StatusCode.INTERNAL)
    await context.abort(code, answer.problem, trailing)


def model_path(name: str, version: str) -> str:
    """The path of a model, or of one of its versions."""
    path = f"/v2/models/{quote(name, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path


def peer_of(text: str) -> str:
    """The address in gRPC's name for who has connected: ipv4:192.0.2.7:80, ipv6:%5B::1%5D:80."""
    kind, _, rest = text.partition(":")
    if kind == "unix":
        return UNIX
    return unquote(rest).rpartition(":")[0].strip("[]")
