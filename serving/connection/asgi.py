"""A request that an ASGI application answers.

What the application sends is gathered and leaves in one piece. For what is too long for that, a
body message may have `pieces`, an asynchronous generator of bytes.
"""

import asyncio
import logging

from serving.connection.connection import Connection
from serving.connection.exchange import Exchange
from serving.connection.request_head import Head
from serving.errors import Problem
from serving.http.memory import Hold
from serving.http.messages import ASGIApp, Headers, Message, Scope

logger = logging.getLogger(__name__)

_UNREAD_BYTES = 64 << 10
HOLD = "saddlepoint.hold"
"""Where a scope has the request's `Hold`."""
PEER = "saddlepoint.peer"
"""Where it has who has connected: an address, or `unix`."""
PARAMS = "saddlepoint.params"
"""Where the scope of a call from within has what a path names; its path is the route's own."""


class ASGIExchange(Exchange):
    """The request's side of ASGI: a scope, `receive` and `send`."""

    def __init__(self, connection: Connection, head: Head, app: ASGIApp) -> None:
        """Begins to run the application."""
        super().__init__(head, Hold(connection.connections.memory))
        self._connection = connection
        self._pieces: list[bytes] = []  # have come, aren't received yet
        self._num_unread = 0
        self._is_complete = False  # all of the body has come
        self._is_received = False  # ... and was received
        self._has_gone = False
        self._problem: Problem | None = None  # why the rest of the body won't come
        self._changed = asyncio.Event()
        self._status = 0
        self._headers: Headers = ()
        self._parts: list[bytes] = []
        self._is_answered = False
        connection.start_task(self._run(app))

    def add_body(self, data: bytes) -> None:
        """Lets the application receive it."""
        self._pieces.append(data)
        self._num_unread += len(data)
        if self._num_unread > _UNREAD_BYTES:
            self._connection.pause_reading()
        self._changed.set()

    def end_body(self) -> None:
        """Lets the application receive the end."""
        self._is_complete = True
        self._changed.set()

    def fail(self, problem: Problem) -> None:
        """Raises the problem where the application receives."""
        self._problem = problem
        self._changed.set()

    def cancel(self) -> None:
        """Lets the application receive that the client has gone."""
        self._has_gone = True
        self._changed.set()

    async def receive(self) -> Message:
        """Part of ASGI.

        Raises:
            Problem: the rest of the body won't come.
        """
        while True:
            if self._has_gone:
                return {"type": "http.disconnect"}
            if self._problem is not None:
                raise self._problem
            if not self._is_received:
                if self._pieces or self._is_complete:
                    return self._take()
                if self.head.expects_continue:
                    self._connection.send_continue()
                self._connection.resume_reading()
            self._changed.clear()
            await self._changed.wait()

    async def send(self, message: Message) -> None:
        """Part of ASGI."""
        pieces = message.get("pieces")
        if pieces is not None:
            self._is_answered = True
            await self._connection.stream(self._status, self._headers, pieces)
            return
        if message["type"] == "http.response.start":
            self._status, self._headers = message["status"], tuple(message.get("headers", ()))
            return
        self._parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._is_answered = True
            self._connection.answer(self._status, self._headers, body)

    def _take(self) -> Message:
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._num_unread = 0
        self._is_received = self._is_complete
        if self._is_received:
            self._connection.resume_reading()  # else nobody would hear that the client leaves
        return {"type": "http.request", "body": body, "more_body": not self._is_complete}

    def _scope(self) -> Scope:
        head = self.head
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.0" if head.line.is_http_1_0 else "1.1",
            "method": head.line.method,
            "scheme": "http",
            "path": head.line.path,
            "raw_path": head.line.raw_path,
            "query_string": head.line.query,
            "root_path": "",
            "headers": head.headers,
            HOLD: self.hold,
            PEER: self._connection.peer,
        }

    async def _run(self, app: ASGIApp) -> None:
        try:
            await app(self._scope(), self.receive, self.send)
        except Exception:
            logger.exception("the application failed")
        finally:
            # Where nothing was answered, cancelled at the end of a drain too, nothing will be.
            if not (self._is_answered or self._has_gone):
                self._connection.end("failure")
