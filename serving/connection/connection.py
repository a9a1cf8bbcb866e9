"""One connection: requests are read one after the other, answered, and the answers taken.

Between uvicorn's server, which listens and drains, and whoever answers (`Exchange`). A request is
begun when its head is there, the next one not before the client has taken the last answer: what a
client doesn't read is never more than one answer. Nothing waits for ever (`Connections` looks).

A client that stops to send is answered all the same, unless it has gone altogether (`Presence`).
Where reading is paused, neither is heard: there the kernel is asked.
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, cast

from serving.connection.connections import Connections
from serving.connection.exchange import Exchange
from serving.connection.lingering import Lingering
from serving.connection.presence import CONTINUE, Presence
from serving.connection.request_body import BodyReader
from serving.connection.request_head import Head
from serving.connection.request_reader import RequestReader
from serving.connection.unread import AnswerWriter, Unread, with_connection
from serving.errors import OverloadedProblem, Problem
from serving.http.memory import Hold
from serving.http.messages import CLOSE, Headers, slow_request
from serving.http.proxies import UNIX

# A body that is larger counts as held; smaller ones are bounded by the number of connections.
_SMALL_BYTES = 64 << 10
# What remains of a body that nobody wants is read to its end if it is no more than this.
_SKIPPED_BYTES = 64 << 10
# What of the next requests is read while one is answered.
_AHEAD_BYTES = 64 << 10
# How long a connection may still bring a request when the server drains: one that has brought some,
# and one that has brought none. Who connects is about to ask; the request may be a round trip away.
_LAST_CALL_S, _FIRST_CALL_S = 0.1, 1.0


class Connection(asyncio.Protocol):
    """Reads requests and writes answers; knows no route."""

    transport: asyncio.Transport
    _writer: AnswerWriter
    _presence: Presence

    def __init__(self, connections: Connections, server_state: Any) -> None:
        """server_state: uvicorn's; it waits for the connections in it when it drains."""
        self.connections = connections
        self.loop = asyncio.get_running_loop()
        self._server_state = server_state
        self.peer = ""
        """Who has connected: an address, or `unix`."""
        self._reader = RequestReader(connections.root_path)
        self._exchange: Exchange | None = None
        self._lingering: Lingering | None = None
        self._has_answered = False
        self._is_ending = False  # no more requests are read
        self._is_half_closed = False  # the client sends no more
        self._reads = True
        self._goes_on_soon = False
        self._was_told = False  # 100 Continue, since this request waits with its body for it
        self._due = math.inf
        self._is_streaming = False  # an answer is sent in pieces
        self._taking: asyncio.Future[None] | None = None  # one of them is on its way

    def begin(self, head: Head) -> Exchange:
        """A request's head has come; gives who answers it."""
        raise NotImplementedError

    def refuse(self, problem: Problem) -> None:
        """Answers, by `send`, what can't be read as a request; the problem ends the connection."""
        raise NotImplementedError

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio's protocol."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._writer, self._presence = AnswerWriter(self.transport), Presence(self.transport)
        self._server_state.connections.add(self)
        self.connections.add(self)
        self._due = self.loop.time() + self.connections.limits.read_timeout_s
        self.peer = _peer(transport)
        descriptor = transport.get_extra_info("socket").fileno()
        if not self.connections.may_take(descriptor):
            self._is_ending = True
            self.transport.write(self.connections.refusal)
            if self.connections.may_linger(descriptor):
                self._linger(briefly=True)
            else:
                self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of asyncio's protocol."""
        self._server_state.connections.discard(self)
        self.connections.discard(self)
        self._is_ending = True
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.cancel()
            exchange.hold.release()
        self._writer.forget()
        self._end_taking()

    def data_received(self, data: bytes) -> None:
        """Part of asyncio's protocol."""
        if self._lingering is not None:
            self._lingering.throw_away(data)
        elif not self._is_ending:
            if self._is_idle:
                self._due = self.loop.time() + self.connections.limits.read_timeout_s
            self._reader.feed(data)
            self._go_on()

    def eof_received(self) -> bool:
        """Part of asyncio's protocol: the client sends no more. True leaves the other way open."""
        self._is_half_closed = True
        if self._lingering is not None or self._reader.body is not None:
            return False  # a body that isn't complete never will be
        if self._exchange is not None and not self._is_streaming:
            self._due = self._presence.begin(self.loop.time())
        return self._exchange is not None or self.unread is not None or self._goes_on_soon

    def pause_writing(self) -> None:
        """Part of asyncio's protocol: the kernel has not taken all of what was written."""
        self._writer.is_paused = True

    def resume_writing(self) -> None:
        """Part of asyncio's protocol: now it has."""
        self._writer.is_paused = False
        if self.unread is not None:
            self._writer.forget()
            if self._taking is not None:
                self._end_taking()
            else:
                self._go_on_after_answer()

    # The side of who answers.

    def answer(self, status: int, headers: Headers, body: bytes) -> bool:
        """Sends the answer of the exchange that is under way; the headers say type and length.

        False where the client has gone.
        """
        exchange, self._exchange = self._exchange, None
        if exchange is None or self.transport.is_closing():
            if exchange is not None:
                exchange.hold.release()
            return False
        head = exchange.head
        self._is_ending = self._is_ending or self._must_end(head, headers)
        try:
            self.send(status, headers, body, exchange.hold, to_http_1_0=head.line.is_http_1_0)
        except Exception:
            self.end("failure")  # half an answer may be there
            raise
        self._has_answered = True
        if self.unread is None:
            self._go_on_after_answer()
        return True

    def send(
        self,
        status: int,
        headers: Headers,
        body: bytes,
        hold: Hold | None = None,
        *,
        to_http_1_0: bool = False,
    ) -> None:
        """Writes an answer."""
        headers = with_connection(headers, ends=self._is_ending, to_http_1_0=to_http_1_0)
        hold = hold or Hold(self.connections.memory)
        defaults = self._server_state.default_headers
        self._writer.write(status, headers, defaults, body, hold, self.loop.time())

    async def stream(self, status: int, headers: Headers, pieces: AsyncGenerator[bytes]) -> bool:
        """Sends the answer of the exchange that is under way in pieces; the headers say its length.

        A piece is asked for when the client has taken the last one, so one is in memory.

        Returns:
            False where the client has gone, or there were fewer bytes than the headers say.
        """
        exchange = self._exchange
        if exchange is None or self.transport.is_closing():
            return False
        head = exchange.head
        left = int(dict(headers)[b"content-length"])
        self._is_ending = self._is_ending or self._must_end(head, headers)
        self._due, self._is_streaming = math.inf, True
        self.send(status, headers, b"", to_http_1_0=head.line.is_http_1_0)
        try:
            await self._taken()
            async with contextlib.aclosing(pieces):
                async for piece in pieces:
                    if exchange is not self._exchange:
                        return False
                    hold = Hold(self.connections.memory)
                    self._writer.write_piece(piece, hold, self.loop.time())
                    left -= len(piece)
                    await self._taken()
        finally:
            self._is_streaming = False
            complete = left == 0 and exchange is self._exchange
            if exchange is self._exchange and not complete:
                self.end("failure")  # the client must not take it for the whole
        if complete:
            self._exchange, self._has_answered = None, True
            exchange.hold.release()
            self._go_on_after_answer()
        return complete

    async def _taken(self) -> None:
        """Waits until the client has taken what was written, or has gone."""
        if self.unread is not None:
            self._taking = self.loop.create_future()
            await self._taking

    def _end_taking(self) -> None:
        taking, self._taking = self._taking, None
        if taking is not None and not taking.done():
            taking.set_result(None)

    def send_continue(self) -> None:
        """Tells a client, once, to send the body that it waits with."""
        if self._reader.body is not None and not (self._was_told or self.transport.is_closing()):
            self._was_told = True
            self.transport.write(CONTINUE)

    def start_task(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs something that the server waits for when it drains."""
        tasks = self._server_state.tasks
        task = self.loop.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def pause_reading(self) -> None:
        """Leaves in the kernel what comes."""
        if self._reads and not self.transport.is_closing():
            self._reads = False
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Takes what comes again."""
        if not self._reads and not self.transport.is_closing():
            self._reads = True
            self.transport.resume_reading()

    # uvicorn's side.

    def shutdown(self) -> None:
        """The server drains: ends after what is under way, or on its way.

        A request may lie unread in the socket's buffer; closing at once would lose it.
        """
        if self._is_idle:
            wait_s = _LAST_CALL_S if self._has_answered else _FIRST_CALL_S
            self.loop.call_later(wait_s, self._end_if_idle)
        elif self._exchange is None and self.unread is None and self._reader.body is None:
            self._due = min(self._due, self.loop.time() + _FIRST_CALL_S)  # half a head

    # The side of `Connections`.

    @property
    def unread(self) -> Unread | None:
        """The answer that the client is taking, if there is one."""
        return self._writer.unread

    def check(self, now: float) -> None:
        """Acts where a deadline is over."""
        draining, limits = self.connections.draining, self.connections.limits
        if self._writer.is_too_slow(now, limits.write_timeout_s, draining=draining):
            self.end("drain" if draining else "write-timeout")
        elif self.unread is None and now >= self._due:
            self._due = math.inf
            self._give_up(now)
        elif self._exchange is not None and not self._reads and self._presence.sends_no_more():
            self._presence.begin(now)
            self._look_for_client(self._exchange, now)

    def end(self, reason: str) -> None:
        """Ends it at once, whatever the client has not taken."""
        if self.unread is not None:
            self.connections.count_ended(reason)
            self._writer.forget()
        self._is_ending = True
        self.transport.abort()

    # Reading.

    @property
    def _is_idle(self) -> bool:
        """No request is under way, or half here."""
        reader = self._reader
        return not (self._is_busy or reader.body is not None or reader.num_bytes)

    @property
    def _is_busy(self) -> bool:
        """An answer is being made, or taken."""
        return self._exchange is not None or self.unread is not None or self._goes_on_soon

    def _end_if_idle(self) -> None:
        if self._is_idle and self._lingering is None:
            self.transport.close()

    def _go_on(self) -> None:
        """Reads as much of what has come as can be read now."""
        try:
            while not self._is_ending:
                if not (self._read_body() if self._reader.body is not None else self._read_head()):
                    return
        except Problem as problem:
            if self._exchange is not None:
                self._is_ending = True
                self._exchange.fail(problem)
            elif self._reader.body is not None:  # it is answered, and was being read to its end
                self._linger()
            else:
                self._refuse(problem)

    def _read_head(self) -> bool:
        """Begins the next request; False where that can't be yet."""
        if self._is_busy:
            if self._reader.num_bytes > _AHEAD_BYTES:
                self.pause_reading()
            return False
        head = self._reader.read_head()
        if head is None:
            return False
        self._was_told = False
        self._presence.reset()
        if not head.has_body:
            self._wait_for_answer()
        exchange = self._exchange = self.begin(head)
        if not head.has_body:
            exchange.end_body()
        return True

    def _read_body(self) -> bool:
        """Gives the exchange what has come of the body; drops it where that has answered.

        False where more is to come.
        """
        body, exchange = self._reader.body, self._exchange
        if body is None or not self._reader.num_bytes:
            return False
        for piece in self._reader.read_body():
            if exchange is not None and exchange is self._exchange:
                self._book(exchange, body, len(piece))
                exchange.add_body(piece)
        if self._reader.body is not None:
            return False
        self._wait_for_answer()
        if exchange is None:
            self._go_on_after_answer()
        elif exchange is self._exchange:
            exchange.end_body()
        return True

    def _wait_for_answer(self) -> None:
        """A request is complete; its client may have ended its side already."""
        half_closed = self._is_half_closed
        self._due = self._presence.begin(self.loop.time()) if half_closed else math.inf

    def _book(self, exchange: Exchange, body: BodyReader, num_bytes: int) -> None:
        """Counts a body that is not small.

        Raises:
            OverloadedProblem: there is no memory for it.
        """
        if body.left is not None:  # all of it at once: half a body is of no use
            num_bytes = 0 if exchange.hold.num_bytes else num_bytes + body.left
            if num_bytes <= _SMALL_BYTES or num_bytes > self.connections.limits.max_body_bytes:
                return
        if not exchange.hold.try_add(num_bytes):
            memory = self.connections.memory
            raise OverloadedProblem(
                f"{memory.held_bytes} bytes are held for clients, {memory.max_bytes} may be; "
                "try again in a moment",
                headers=((b"retry-after", b"1"), CLOSE),
            )

    def _refuse(self, problem: Problem) -> None:
        """Answers what can't be read as a request."""
        self._is_ending = True
        self.refuse(problem)
        if self.unread is None:
            self._linger()

    # What comes after an answer.

    def _must_end(self, head: Head, headers: Headers) -> bool:
        """True where this answer is the connection's last one."""
        if not head.keep_alive or CLOSE in headers:
            return True
        body = self._reader.body
        if body is None:
            return False
        # The rest of a body would have to be read first; who waits for 100 may never send it.
        return head.expects_continue or body.left is None or body.left > _SKIPPED_BYTES

    def _go_on_after_answer(self) -> None:
        """The client has taken the answer: the connection ends, rests, or goes on."""
        reader = self._reader
        if self._is_ending:
            may_send = reader.body is not None or reader.num_bytes or self.connections.draining
            if may_send:
                self._linger()
            else:
                self.transport.close()
        elif reader.body is not None:
            self.resume_reading()  # the rest of a body, to be dropped
            if self._due == math.inf:
                self._due = self.loop.time() + self.connections.limits.read_timeout_s
        elif reader.num_bytes:
            # Not from here: thousands of requests may lie in it, and each may be answered at once.
            if not self._goes_on_soon:
                self._goes_on_soon = True
                self.loop.call_soon(self._go_on_soon)
        elif self._is_half_closed:
            self.transport.close()
        else:
            self._due = self.loop.time() + self.connections.limits.keep_alive_s
            self.resume_reading()

    def _go_on_soon(self) -> None:
        self._goes_on_soon = False
        self._due = self.loop.time() + self.connections.limits.read_timeout_s
        self.resume_reading()
        self._go_on()
        if self._is_half_closed and not self._is_busy:
            self.transport.close()

    def _linger(self, *, briefly: bool = False) -> None:
        """Ends, and lets the client read what it was answered while it is still sending."""
        if self._lingering is not None or self.transport.is_closing():
            return
        self._is_ending = True
        if self._is_half_closed:
            self.transport.close()
            return
        now, draining = self.loop.time(), self.connections.draining
        self._lingering = Lingering(self.transport, now, briefly=briefly or draining)
        self._due = self._lingering.due
        self.resume_reading()

    def _give_up(self, now: float) -> None:
        """What was to come has not."""
        if self._exchange is not None and self._is_half_closed:
            self._due = now  # again soon: a reset takes a round trip
            self._look_for_client(self._exchange, now)
        elif self._exchange is not None:
            self._exchange.fail(slow_request(self.connections.limits.read_timeout_s))
        elif self._lingering is None and self._reader.body is None and self._reader.num_bytes:
            self._refuse(slow_request(self.connections.limits.read_timeout_s))
        else:  # nothing has come, or it was answered before its body was complete
            self.transport.close()

    def _look_for_client(self, exchange: Exchange, now: float) -> None:
        """Ends where a client that sends no more has gone altogether."""
        may_ask = not (exchange.head.line.is_http_1_0 or self._is_streaming)
        if self._presence.is_gone(now, may_ask=may_ask):
            self.transport.abort()


def _peer(transport: asyncio.BaseTransport) -> str:
    name = transport.get_extra_info("peername")
    return str(name[0]) if isinstance(name, tuple) else UNIX
