"""One stream of a connection: a request's fields and body, and the answer to it."""

import asyncio
from collections import deque
from typing import Protocol

from serving.connection.unread import Unread
from serving.http.memory import Hold, Memory
from serving.http2 import frames
from serving.http2.hpack import Fields


class Carrier(Protocol):
    """The connection of a stream, as the stream sees it."""

    peer: str
    window: int
    loop: asyncio.AbstractEventLoop

    @property
    def memory(self) -> Memory:
        """Of the process."""
        ...

    def may_send(self, stream: "Stream", num_bytes: int) -> bool:
        """Whether the client takes so much of an answer at once, and nothing goes before it."""
        ...

    def room_for(self, stream: "Stream") -> int:
        """Bytes of an answer that the client takes now."""
        ...

    def spend(self, stream: "Stream", num_bytes: int) -> None:
        """So much of an answer is sent."""
        ...

    def write(self, data: bytes) -> None:
        """Writes frames."""
        ...

    def wait(self, stream: "Stream") -> None:
        """A stream goes on when the client takes more."""
        ...

    def close_stream(self, stream: "Stream") -> None:
        """A stream was answered, or is given up."""
        ...


class Receiver(Protocol):
    """Who gets a request, and answers it by the stream's methods."""

    def add_data(self, data: bytes) -> None:
        """A part of the body has come."""
        ...

    def end_data(self) -> None:
        """The body has come."""
        ...

    def cancel(self) -> None:
        """The client gives the request up, or has gone; nothing can be answered any more."""
        ...


class Stream:
    """The request, and what of its answer is not yet on its way."""

    def __init__(self, connection: Carrier, number: int, fields: Fields, window: int) -> None:
        """window: bytes of the answer that the client takes before it allows more."""
        self.number = number
        self.fields = fields
        self.peer = connection.peer
        self.window = window
        self.hold = Hold(connection.memory)
        """The memory of the request, until its answer was taken."""
        self.receiver: Receiver
        self.unread: Unread | None = None
        """What of the answer waits for the client."""
        self.has_ended_body = False
        self.due: float
        """When the body must be complete, by the event loop's clock; inf where it may last."""
        self.is_over = False
        self._connection = connection
        self._num_untaken = 0
        self._allowance = connection.window  # bytes of the body that the client may still send
        self._parts: deque[memoryview] = deque()
        self._num_left = 0
        self._trailers: bytes | None = None
        self._taken: asyncio.Future[None] | None = None

    def answer(self, head: bytes, data: bytes, trailers: bytes) -> None:
        """Sends a whole answer; head and trailers are header blocks."""
        connection, size = self._connection, len(data)
        if not connection.may_send(self, size) or size > frames.MAX_FRAME_BYTES:
            self.send_head(head)
            self.send(data)
            self.end(trailers)
        elif not self.is_over:
            number = self.number
            connection.spend(self, size)
            connection.write(
                frames.frame(frames.HEADERS, frames.END_HEADERS, number, head)
                + frames.frame(frames.DATA, 0, number, data)
                + self._last_frame(trailers)
            )
            connection.close_stream(self)

    def send_head(self, head: bytes) -> None:
        """Sends the answer's header block; data and trailers follow."""
        if not self.is_over:
            self._connection.write(
                frames.frame(frames.HEADERS, frames.END_HEADERS, self.number, head)
            )

    def send(self, data: bytes) -> None:
        """Sends more of the answer, as fast as the client takes it."""
        if self.is_over:
            return
        self._parts.append(memoryview(data))
        self._num_left += len(data)
        self.go_on()

    def end(self, trailers: bytes) -> None:
        """Ends the answer after what was sent."""
        if not self.is_over:
            self._trailers = trailers
            self.go_on()

    async def taken(self) -> None:
        """Waits until the client has taken what was sent, or the stream is over."""
        if self._num_left:
            self._taken = asyncio.get_running_loop().create_future()
            await self._taken

    def reset(self, code: int) -> None:
        """Ends the stream without an answer, or in the middle of it."""
        if not self.is_over:
            self._connection.write(frames.reset(self.number, code))
            self._connection.close_stream(self)

    @property
    def is_waiting(self) -> bool:
        """Whether a part of the answer waits for the client."""
        return self._num_left > 0

    def receive(self, num_bytes: int) -> None:
        """So much of the body has come.

        Raises:
            ProtocolError: the client may not have sent it yet.
        """
        self._allowance -= num_bytes
        if self._allowance < 0:
            words = f"stream {self.number} has sent more of its body than it may"
            raise frames.ProtocolError(frames.FLOW_CONTROL_ERROR, words)

    def take(self, num_bytes: int) -> None:
        """So much of the body was used: the client may send more."""
        self._num_untaken += num_bytes
        if self._num_untaken >= self._connection.window // 2 and not self.has_ended_body:
            self._connection.write(frames.window_update(self.number, self._num_untaken))
            self._allowance += self._num_untaken
            self._num_untaken = 0

    def go_on(self) -> None:
        """Sends as much as the client takes now."""
        connection = self._connection
        while self._parts:
            part = self._parts[0]
            num = min(connection.room_for(self), len(part), frames.MAX_FRAME_BYTES)
            if num <= 0:
                break
            connection.spend(self, num)
            connection.write(frames.frame(frames.DATA, 0, self.number, bytes(part[:num])))
            self._num_left -= num
            if num == len(part):
                self._parts.popleft()
            else:
                self._parts[0] = part[num:]
        if self._parts:
            now = connection.loop.time()
            if self.unread is None:
                self.hold.resize(self._num_left)
                self.unread = Unread(self.hold, self._num_left, now)
            self.unread.see(self._num_left, now)
            connection.wait(self)
            return
        self.unread = None
        self._end_taking()
        if self._trailers is not None:
            connection.write(self._last_frame(self._trailers))
            connection.close_stream(self)

    def forget(self) -> None:
        """Nothing more is sent."""
        self.is_over = True
        self._parts.clear()
        self._num_left = 0
        self.unread = None
        self.hold.release()
        self._end_taking()

    def _end_taking(self) -> None:
        taken, self._taken = self._taken, None
        if taken is not None and not taken.done():
            taken.set_result(None)

    def _last_frame(self, trailers: bytes) -> bytes:
        flags = frames.END_HEADERS | frames.END_STREAM
        return frames.frame(frames.HEADERS, flags, self.number, trailers)
