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
from typing import TYPE_CHECKING, Any, cast

from serving.errors import Problem
from serving.heads import MAX_PLAIN_BYTES, Head, read_head
from serving.http import CLOSE, ClientGoneError, Headers, Reply, log_failure, slow_request
from serving.reading import TimedProtocol
from serving.schemas import Order
from serving.terms import deadline_problem
from serving.tickets import Ticket
from serving.visits import Visit

if TYPE_CHECKING:
    from serving.app import Gateway

# How long a connection may still bring a request when the server drains: one that has brought some,
# and one that has brought none. Who connects is about to ask; the request may be a round trip away.
_LAST_CALL_S, _FIRST_CALL_S = 0.1, 1.0


class HotProtocol(TimedProtocol):
    """uvicorn's protocol with a short road; one instance a connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Called by uvicorn."""
        super().__init__(*args, **kwargs)
        self._gateway = cast("Gateway", self.app)
        self._coming: tuple[Head, Visit] | None = None  # a plain request whose body is coming
        self._held = bytearray()  # what of it has come
        self._ahead = b""  # what came while an answer is being made
        self._busy = False
        self._ticket: Ticket | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._encoding: tuple[Visit, asyncio.Task[None]] | None = None

    @property
    def read_timeout_s(self) -> float:
        """Implements `TimedProtocol`."""
        return self._gateway.service.settings.read_timeout_s

    def data_received(self, data: bytes) -> None:
        """Part of asyncio's protocol."""
        if self._busy:
            self._ahead += data
            if len(self._ahead) > MAX_PLAIN_BYTES:
                self.flow.pause_reading()
        elif self._coming is not None:
            self._held += data
            self._take(*self._coming)
        elif self.inside or not self.idle():
            self.leave_to_uvicorn(data)
        else:
            self._receive(data)

    def _receive(self, data: bytes) -> None:
        """The beginning of a request."""
        head = read_head(data)
        service = self._gateway.service
        if head is None or head.body_end - head.body_start > service.settings.max_body_bytes:
            self.leave_to_uvicorn(data)
            return
        key = None
        if service.gate.closed and (key := service.gate.find(head.headers.get)) is None:
            self.leave_to_uvicorn(data)  # the router refuses it, before its body has come
            return
        self._unset_keepalive_if_required()
        visit = service.visits.open(head.route, "POST", head.headers.get)
        visit.key = key
        if len(data) < head.body_end:
            self._coming, self._held = (head, visit), bytearray(data)
            self.complete()
            self.expect()
        else:
            self._begin(head, visit, data)

    def _take(self, head: Head, visit: Visit) -> None:
        """More of a body has come."""
        if len(self._held) >= head.body_end:
            data, self._held, self._coming = bytes(self._held), bytearray(), None
            self._begin(head, visit, data)

    def give_up(self, timeout_s: float) -> None:
        """Implements `TimedProtocol`."""
        if self._coming is not None:
            (_, visit), self._coming = self._coming, None
            self._answer(visit, Reply.problem(slow_request(timeout_s)))
        else:
            super().give_up(timeout_s)

    def refuse(self, problem: Problem) -> None:
        """Implements `TimedProtocol`."""
        visit = self._gateway.service.visits.open("other", "other", lambda name: None)
        self._answer(visit, Reply.problem(problem))

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of asyncio's protocol: nobody waits for the answer any more."""
        super().connection_lost(exc)
        if self._coming is not None:
            (_, visit), self._coming, self._held = self._coming, None, bytearray()
            self._gateway.service.visits.close(visit, None)
        if self._ticket is not None:
            self._gateway.service.abandon(self._ticket, "disconnect", ClientGoneError())
        encoding = self._stop_encoding()
        if encoding is not None:
            self._gateway.service.visits.close(encoding, None)
        self._disarm()

    def shutdown(self) -> None:
        """Called by uvicorn when the server drains: ends after what is under way, or on its way.

        A request may lie unread in the socket's buffer; closing at once would lose it.
        """
        self._gateway.service.drain()
        if self._busy:
            return
        if self.idle():
            answered = self.timeout_keep_alive_task is not None
            self.loop.call_later(_LAST_CALL_S if answered else _FIRST_CALL_S, self._end_if_idle)
        else:
            super().shutdown()

    def _end_if_idle(self) -> None:
        if self.idle() and not (self._busy or self._coming or self.inside):
            self.transport.close()

    def _begin(self, head: Head, visit: Visit, data: bytes) -> None:
        """All of a request is there."""
        self.complete()
        self._busy = True
        self._ahead = data[head.body_end :]
        service = self._gateway.service
        try:
            body = data[head.body_start : head.body_end]
            order, terms = self._gateway.v1.read_order(body, visit.header)
            kept = service.replies.cached(order, visit)
            if kept is not None:
                self._answer(visit, kept)
                return
            ticket = service.submit(order, terms, visit)
        except Problem as problem:
            self._answer(visit, Reply.problem(problem))
            return
        except Exception as error:
            self._fail(visit, error)
            return
        self._ticket = ticket
        self._deadline = self.loop.call_later(
            terms.timeout_ms / 1e3, self._expire, ticket, terms.timeout_ms
        )
        ticket.done.add_done_callback(functools.partial(self._made, visit, order, ticket))

    def _expire(self, ticket: Ticket, timeout_ms: int) -> None:
        """The time is over: `_made` hears of it, or what is being encoded is given up."""
        problem = deadline_problem(timeout_ms)
        self._gateway.service.abandon(ticket, "deadline", problem)
        visit = self._stop_encoding()
        if visit is not None:
            self._answer(visit, Reply.problem(problem))

    def _disarm(self) -> None:
        """The request is over: no deadline any more."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _stop_encoding(self) -> Visit | None:
        """Whose answer was being encoded; it won't be answered any more."""
        if self._encoding is None:
            return None
        (visit, task), self._encoding = self._encoding, None
        task.cancel()
        return visit

    def _made(
        self, visit: Visit, order: Order, ticket: Ticket, done: "asyncio.Future[Any]"
    ) -> None:
        self._ticket = None
        service = self._gateway.service
        error = done.exception()
        if isinstance(error, Problem):
            self._answer(visit, Reply.problem(error))
        elif isinstance(error, ClientGoneError):
            service.visits.close(visit, None)
        elif error is not None:
            self._fail(visit, error)
        elif service.replies.encodes_here(order, done.result()):
            try:
                reply = service.replies.make(order, ticket, done.result())
            except Exception as unforeseen:
                self._fail(visit, unforeseen)
            else:
                self._answer(visit, reply)
        else:
            self._encoding = visit, self.loop.create_task(self._encode(visit, order, ticket))

    async def _encode(self, visit: Visit, order: Order, ticket: Ticket) -> None:
        try:
            reply = await self._gateway.service.replies.make_off_loop(
                order, ticket, ticket.done.result()
            )
        except Exception as error:
            self._encoding = None
            self._fail(visit, error)
        else:
            self._encoding = None
            self._answer(visit, reply)

    def _fail(self, visit: Visit, error: BaseException) -> None:
        log_failure(visit, error)
        self._answer(visit, Reply.failure())

    def _answer(self, visit: Visit, reply: Reply) -> None:
        self._disarm()
        self.server_state.total_requests += 1
        visits = self._gateway.service.visits
        if self.transport.is_closing():
            visits.close(visit, None)
            return
        headers = visits.headers(visit, reply)
        self.transport.write(_bytes_of(reply, headers, self.server_state.default_headers))
        visits.close(visit, reply)
        if CLOSE in headers:
            self._busy = False
            self.transport.close()
        elif self._ahead:
            # Not from here: thousands of requests may lie in it, and each may be answered at once.
            self._busy = True
            self.loop.call_soon(self._go_on)
        else:
            self._busy = False
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
            self.flow.resume_reading()

    def _go_on(self) -> None:
        """Takes up what came while an answer was being made."""
        self._busy = False
        ahead, self._ahead = self._ahead, b""
        if not self.transport.is_closing():
            self.flow.resume_reading()
            self.data_received(ahead)


def _bytes_of(reply: Reply, headers: Headers, defaults: list[tuple[bytes, bytes]]) -> bytes:
    parts = [_status_line(reply.status)]
    for name, value in defaults:
        parts += (name, b": ", value, b"\r\n")
    parts += (b"content-type: ", reply.media_type.encode("ascii"), b"\r\ncontent-length: ")
    parts.append(b"%d\r\n" % len(reply.body))
    for name, value in headers:
        parts += (name, b": ", value, b"\r\n")
    parts += (b"\r\n", reply.body)
    return b"".join(parts)


@functools.cache
def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\n".encode("ascii")
