"""A connection whose requests must come in time, and begin with a head of a sane length.

uvicorn ends a connection that is idle after an answer, but waits for ever for a first request, for
the rest of a head and for the rest of a body; a few thousand clients that send a byte a minute
would have every socket. What a handler reads has a time-out in `serving.http.Exchange`; this is for
all that no handler waits for. Nor does uvicorn bound a head: one client could fill the memory.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.errors import LongHeadProblem, LongPathProblem, NotHttpProblem, Problem
from serving.http import CLOSE, slow_request

MAX_HEAD_BYTES = 32 << 10
"""Of a request's path and query, and of its headers; what nginx reads too."""


class TimedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with a time-out for what is read."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Called by uvicorn."""
        super().__init__(*args, **kwargs)
        self.inside = False  # the parser is within a message
        self._in_body = False  # ... and past its head
        self._num_head_bytes = 0  # of the headers that are complete
        self._num_partial_bytes = 0  # that came while the head wasn't
        self._refusal: Problem | None = None  # of the head that the parser is in
        self._reading: asyncio.TimerHandle | None = None

    @property
    def read_timeout_s(self) -> float:
        """How long a request may take to come."""
        raise NotImplementedError

    def refuse(self, problem: Problem) -> None:
        """Answers what has no head that can be read; the problem ends the connection."""
        raise NotImplementedError

    def connection_made(  # type: ignore[override]
        self, transport: asyncio.Transport
    ) -> None:
        """Part of asyncio's protocol."""
        super().connection_made(transport)
        self.expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of asyncio's protocol."""
        super().connection_lost(exc)
        self.complete()

    def on_message_begin(self) -> None:
        """Part of httptools' protocol."""
        self.inside, self._in_body = True, False
        self._num_head_bytes = self._num_partial_bytes = 0
        self.complete()  # the time that a connection may rest is over, this request's begins
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Part of httptools' protocol: some of the path and query."""
        super().on_url(url)
        if len(self.url) > MAX_HEAD_BYTES:
            self._refuse_head(
                LongPathProblem(
                    f"path and query have more than {MAX_HEAD_BYTES} bytes; send them in a body",
                    headers=(CLOSE,),
                )
            )

    def on_header(self, name: bytes, value: bytes) -> None:
        """Part of httptools' protocol."""
        self._num_head_bytes += len(name) + len(value)
        if self._num_head_bytes > MAX_HEAD_BYTES:
            self._refuse_head(_long_head())
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Part of httptools' protocol."""
        self._in_body = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Part of httptools' protocol."""
        self.inside = False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn where the parser can make nothing of what came."""
        text = f"{msg} This port speaks HTTP/1.1, without TLS"
        self.refuse(self._refusal or NotHttpProblem(text, headers=(CLOSE,)))

    def _refuse_head(self, problem: Problem) -> None:
        """Ends the parser's work from within; uvicorn then sends the 400 that isn't one."""
        self._refusal = problem
        raise ValueError(problem.detail)

    def _unsupported_upgrade_warning(self) -> None:
        """Called by uvicorn: a request asked for another protocol, which a server may ignore."""
        self.cycle.keep_alive = False  # the parser stops where that protocol would begin

    def leave_to_uvicorn(self, data: bytes) -> None:
        """Lets uvicorn's parser have what came."""
        begun = self.inside
        super().data_received(data)
        if begun and self.inside and not self._in_body:
            # The parser keeps a header that isn't complete, and says nothing of it.
            self._num_partial_bytes += len(data)
            if self._num_partial_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.refuse(_long_head())
        if self.inside or (self.idle() and self.timeout_keep_alive_task is None):
            self.expect()
        else:
            self.complete()

    def expect(self) -> None:
        """A request is to come, or to be complete, in time."""
        if self._reading is None:
            timeout_s = self.read_timeout_s
            self._reading = self.loop.call_later(timeout_s, self._time_out, timeout_s)

    def complete(self) -> None:
        """No request is coming, or all of it has come."""
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _time_out(self, timeout_s: float) -> None:
        self._reading = None
        if not self.transport.is_closing():
            self.give_up(timeout_s)

    def give_up(self, timeout_s: float) -> None:
        """What was to come did not."""
        if not self.idle():
            # An answer is being made: of an earlier request, which may hold up reading this one, or
            # of this one, whose handler waits for the body with a time-out of its own.
            self.expect()
        elif self.inside and not self._in_body:
            self.refuse(slow_request(timeout_s))
        else:  # nothing has come, or it was answered before its body was complete
            self.transport.close()

    def idle(self) -> bool:
        """True where uvicorn makes no answer."""
        return (self.cycle is None or self.cycle.response_complete) and not self.pipeline


def _long_head() -> Problem:
    return LongHeadProblem(
        f"the headers have more than {MAX_HEAD_BYTES} bytes; send fewer", headers=(CLOSE,)
    )
