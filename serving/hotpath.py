"""The short road for the one request that matters: POST /v1/generate, whole in the socket's buffer.

uvicorn's protocol makes a parser's events, a scope, a cycle and a task of every request and writes
head and body by two system calls; that is more work than making a small image. This subclass takes
a generate request straight from the bytes to a ticket, and answers with one write, where the
request is plain: HTTP/1.1, a content length, nothing that changes how the connection is used.
Everything else, and every other route, goes uvicorn's way, and gives the same answers: a test
compares them.
"""

import asyncio
import functools
import http
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.batcher import deadline_problem
from serving.errors import Problem
from serving.http import CLOSE, ClientGoneError, Reply, observe
from serving.schemas import Order
from serving.tickets import Ticket

if TYPE_CHECKING:
    from serving.app import Gateway

logger = logging.getLogger(__name__)

_STARTS = {
    b"POST /v1/generate HTTP/1.1\r\n": "/v1/generate",
    b"POST /predict HTTP/1.1\r\n": "/predict",
}
_SPECIAL = frozenset(
    (b"content-encoding", b"transfer-encoding", b"expect", b"upgrade", b"te", b"trailer")
)
_MAX_HEAD_BYTES = 16 << 10
_LAST_CALL_S = 0.1  # how long an idle connection may still bring a request when the server drains


@dataclass(frozen=True, slots=True)
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
    end = data.find(b"\r\n\r\n", start - 2, _MAX_HEAD_BYTES)
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


class HotProtocol(HttpToolsProtocol):
    """uvicorn's protocol with a short road; one instance a connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Called by uvicorn."""
        super().__init__(*args, **kwargs)
        self._gateway = cast("Gateway", self.app)
        self._inside = False  # the parser is within a message
        self._held = b""  # the start of a plain request whose body is still coming
        self._ahead = b""  # what came while an answer is being made
        self._busy = False
        self._ticket: Ticket | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def data_received(self, data: bytes) -> None:
        """Part of asyncio's protocol."""
        if self._busy:
            self._ahead += data
            if len(self._ahead) > _MAX_HEAD_BYTES:
                self.flow.pause_reading()
            return
        if self._held:
            data, self._held = self._held + data, b""
        elif self._inside or not self._idle():
            super().data_received(data)
            return
        head = read_head(data)
        service = self._gateway.service
        if head is None or head.body_end - head.body_start > service.settings.max_body_bytes:
            super().data_received(data)
        elif len(data) < head.body_end:
            self._unset_keepalive_if_required()
            self._held = data
        else:
            self._unset_keepalive_if_required()
            self._ahead = data[head.body_end :]
            self._begin(head, data[head.body_start : head.body_end])

    def on_message_begin(self) -> None:
        """Part of httptools' protocol."""
        self._inside = True
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """Part of httptools' protocol."""
        self._inside = False
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of asyncio's protocol: nobody waits for the answer any more."""
        super().connection_lost(exc)
        self._held = b""
        if self._ticket is not None:
            self._gateway.service.abandon(self._ticket, "disconnect", ClientGoneError())

    def shutdown(self) -> None:
        """Called by uvicorn when the server drains: ends after what is under way, or on its way.

        A request may lie unread in the socket's buffer; closing at once would lose it.
        """
        self._gateway.service.drain()
        if self._busy:
            return
        if self._idle():
            self.loop.call_later(_LAST_CALL_S, self._end_if_idle)
        else:
            super().shutdown()

    def _end_if_idle(self) -> None:
        if self._idle() and not (self._busy or self._held or self._inside):
            self.transport.close()

    def _idle(self) -> bool:
        return (self.cycle is None or self.cycle.response_complete) and not self.pipeline

    def _begin(self, head: Head, body: bytes) -> None:
        started = time.perf_counter()
        self._busy = True
        try:
            order, terms = self._gateway.v1.read_order(body, head.headers.get)
            kept = self._gateway.service.cached(order)
            if kept is not None:
                self._answer(head, kept, started)
                return
            ticket = self._gateway.service.submit(order, terms)
        except Problem as problem:
            self._answer(head, Reply.problem(problem), started)
            return
        except Exception as error:
            self._fail(head, error, started)
            return
        self._ticket = ticket
        self._deadline = self.loop.call_later(
            terms.timeout_ms / 1e3, self._expire, ticket, terms.timeout_ms
        )
        ticket.done.add_done_callback(functools.partial(self._made, head, order, ticket, started))

    def _expire(self, ticket: Ticket, timeout_ms: int) -> None:
        self._gateway.service.abandon(ticket, "deadline", deadline_problem(timeout_ms))

    def _made(
        self, head: Head, order: Order, ticket: Ticket, started: float, done: "asyncio.Future[Any]"
    ) -> None:
        self._ticket = None
        if self._deadline is not None:
            self._deadline.cancel()
        error = done.exception()
        if isinstance(error, Problem):
            self._answer(head, Reply.problem(error), started)
        elif isinstance(error, ClientGoneError):
            observe(head.route, "POST", 499, started)
        elif error is not None:
            self._fail(head, error, started)
        elif self._gateway.service.encodes_here(order, done.result()):
            try:
                reply = self._gateway.service.reply(order, ticket, done.result())
            except Exception as unforeseen:
                self._fail(head, unforeseen, started)
            else:
                self._answer(head, reply, started)
        else:
            self._task = self.loop.create_task(self._encode(head, order, ticket, started))

    async def _encode(self, head: Head, order: Order, ticket: Ticket, started: float) -> None:
        try:
            reply = await self._gateway.service.reply_off_loop(order, ticket, ticket.done.result())
        except Exception as error:
            self._fail(head, error, started)
        else:
            self._answer(head, reply, started)

    def _fail(self, head: Head, error: BaseException, started: float) -> None:
        logger.error("unhandled exception at POST %s", head.route, exc_info=error)
        self._answer(head, Reply.failure(), started)

    def _answer(self, head: Head, reply: Reply, started: float) -> None:
        self.server_state.total_requests += 1
        ends = self._gateway.service.draining or CLOSE in reply.headers
        observe(head.route, "POST", reply.status, started)
        if self.transport.is_closing():
            return
        defaults = self.server_state.default_headers
        self.transport.write(_bytes_of(reply, defaults, ends=ends))
        self._busy = False
        if ends:
            self.transport.close()
            return
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )
        self.flow.resume_reading()
        if self._ahead:
            ahead, self._ahead = self._ahead, b""
            self.data_received(ahead)


def _bytes_of(reply: Reply, defaults: list[tuple[bytes, bytes]], *, ends: bool) -> bytes:
    parts = [_status_line(reply.status)]
    for name, value in defaults:
        parts += (name, b": ", value, b"\r\n")
    parts += (b"content-type: ", reply.media_type.encode("ascii"), b"\r\ncontent-length: ")
    parts.append(b"%d\r\n" % len(reply.body))
    for name, value in reply.headers:
        parts += (name, b": ", value, b"\r\n")
    if ends and CLOSE not in reply.headers:
        parts.append(b"connection: close\r\n")
    parts += (b"\r\n", reply.body)
    return b"".join(parts)


@functools.cache
def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\n".encode("ascii")
