"""One connection of HTTP/2: many requests at once, each a stream.

Only what is asked in clear text by clients that know that this is HTTP/2 ("prior knowledge"), as
gRPC's are. What a client costs has a bound: streams at once, fields, bytes under way in each
direction, time, and frames that make work and bring nothing.
"""

import asyncio
import math
import socket
from collections.abc import Callable
from typing import cast

from serving.connection.connections import Connections
from serving.connection.unread import Unread
from serving.http.memory import Memory
from serving.http2 import frames
from serving.http2.frames import ProtocolError
from serving.http2.hpack import MAX_FIELDS_BYTES, Decoder, HpackError
from serving.http2.stream import Receiver, Stream

MAX_STREAMS = 256
"""Requests of one connection that are answered at once; clients keep the others back."""
WINDOW_BYTES = 1 << 18
"""Of a body that may be under way before some of it is used."""
_WINDOW_OF_ALL = 1 << 22
# Frames that bring nothing (PING, SETTINGS, a stream that is given up, empty data ...) may come in
# such number between two looks at the connection, and one more with each request that is answered.
_MAX_IDLE_FRAMES = 2000
_GOAWAY_S = 0.2  # a client hears of the end and sends nothing more: longer than a round trip

Begin = Callable[[Stream], Receiver]


class Http2Connection(asyncio.Protocol):
    """Reads frames, keeps the streams, writes what they send."""

    transport: asyncio.Transport

    def __init__(
        self, connections: Connections, begin: Begin, opened: set["Http2Connection"]
    ) -> None:
        """Waits for the client.

        Args:
            connections: all of the process, with their limits.
            begin: a request has come; gives who answers it.
            opened: those of one server, among which this one is while it is open.
        """
        self.connections = connections
        self.loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[None] = self.loop.create_future()
        """Done when it is over."""
        self.peer = ""
        """Who has connected."""
        self.window = WINDOW_BYTES
        self._begin = begin
        self._opened = opened
        self._held = b""
        self._has_preface = False
        self._decoder = Decoder()
        self._streams: dict[int, Stream] = {}
        self._waiting: dict[int, Stream] = {}  # for the client to take more of their answers
        self._last = 0  # the highest number of a stream
        self._block: tuple[int, int, bytes] | None = None  # stream, flags, fields so far
        self._out: list[bytes] = []
        self._is_paused = False
        self._paused_since = math.inf
        self._room = frames.DEFAULT_WINDOW  # of all answers together
        self._first_window = frames.DEFAULT_WINDOW  # of each answer
        self._num_untaken = 0
        self._num_idle = 0
        self._is_ending = False
        self._due = math.inf

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio's protocol."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self.connections.add(self)
        self._opened.add(self)
        name = transport.get_extra_info("peername")
        self.peer = str(name[0]) if isinstance(name, tuple) else "unix"
        opened = transport.get_extra_info("socket")
        if not self.connections.may_take(opened.fileno()):
            self.transport.abort()
            return
        # Who is idle may stay, but a machine that is gone says so to nobody.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._due = self.loop.time() + self.connections.limits.read_timeout_s
        self.write(
            frames.settings(
                {
                    frames.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
                    frames.INITIAL_WINDOW_SIZE: WINDOW_BYTES,
                    frames.MAX_HEADER_LIST_SIZE: MAX_FIELDS_BYTES,
                }
            )
            + frames.window_update(0, _WINDOW_OF_ALL - frames.DEFAULT_WINDOW)
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of asyncio's protocol."""
        self.connections.discard(self)
        self._opened.discard(self)
        if not self.closed.done():
            self.closed.set_result(None)
        self._is_ending = True
        for stream in tuple(self._streams.values()):
            self._cancel(stream)

    def data_received(self, data: bytes) -> None:
        """Part of asyncio's protocol."""
        self._held = self._held + data if self._held else data
        try:
            self._read()
        except ProtocolError as error:
            self._end(error.code, str(error))
        except HpackError as error:
            self._end(frames.COMPRESSION_ERROR, str(error))

    def pause_writing(self) -> None:
        """Part of asyncio's protocol."""
        self._is_paused, self._paused_since = True, self.loop.time()

    def resume_writing(self) -> None:
        """Part of asyncio's protocol."""
        self._is_paused, self._paused_since = False, math.inf
        self._go_on()

    # The streams' side.

    @property
    def memory(self) -> Memory:
        """Of the process."""
        return self.connections.memory

    def may_send(self, stream: Stream, num_bytes: int) -> bool:
        """Whether the client takes so much of an answer at once, and nothing goes before it."""
        return num_bytes <= self.room_for(stream) and not stream.is_waiting

    def room_for(self, stream: Stream) -> int:
        """Bytes of an answer that the client takes now."""
        return 0 if self._is_paused else min(self._room, stream.window)

    def spend(self, stream: Stream, num_bytes: int) -> None:
        """So much of an answer is sent."""
        self._room -= num_bytes
        stream.window -= num_bytes

    def write(self, data: bytes) -> None:
        """Writes frames: all of a turn of the event loop in one piece."""
        if not self._out:
            self.loop.call_soon(self._flush)
        self._out.append(data)

    def wait(self, stream: Stream) -> None:
        """A stream goes on when the client takes more."""
        self._waiting[stream.number] = stream

    def close_stream(self, stream: Stream) -> None:
        """A stream was answered, or is given up."""
        if self._streams.pop(stream.number, None) is None:
            return
        if not stream.has_ended_body:  # what still comes of the body is of no use
            self.write(frames.reset(stream.number, frames.NO_ERROR))
        self._waiting.pop(stream.number, None)
        stream.forget()
        self._num_idle = max(0, self._num_idle - 1)
        if self._is_ending and not self._streams:
            self._close_soon()

    # The server's side.

    def shutdown(self) -> None:
        """Answers what has begun, and what a client sends that hasn't heard of it; then ends."""
        if not self._is_ending:
            self.write(frames.goaway(frames.MAX_WINDOW, frames.NO_ERROR))
            self.loop.call_later(_GOAWAY_S, self._shut)

    def _shut(self) -> None:
        if not self._is_ending:
            self._is_ending = True
            self.write(frames.goaway(self._last, frames.NO_ERROR))
            if not self._streams:
                self._close_soon()

    # The side of `Connections`.

    @property
    def unread(self) -> Unread | None:
        """Of the answers that the client doesn't take, the largest."""
        found = [each.unread for each in self._waiting.values() if each.unread is not None]
        return max(found, key=lambda unread: unread.hold.num_bytes, default=None)

    def check(self, now: float) -> None:
        """Acts where a deadline is over."""
        self._num_idle = 0
        limits, draining = self.connections.limits, self.connections.draining
        if now >= self._due or now - self._paused_since >= limits.write_timeout_s:
            self.end("write-timeout")
            return
        for stream in tuple(self._waiting.values()):
            unread = stream.unread
            if unread is not None and unread.is_too_slow(
                now, limits.write_timeout_s, draining=draining
            ):
                self.connections.count_ended("drain" if draining else "write-timeout")
                self._give_up(stream)
        for stream in tuple(self._streams.values()):
            if now >= stream.due and not stream.has_ended_body:
                self._give_up(stream)

    def end(self, reason: str) -> None:
        """Ends it at once, whatever the client has not taken."""
        if self._waiting or self._is_paused:
            self.connections.count_ended(reason)
        self._is_ending = True
        self.transport.abort()

    # Reading.

    def _read(self) -> None:
        position, held = 0, self._held
        if not self._has_preface:
            if not frames.PREFACE.startswith(held[: len(frames.PREFACE)]):
                raise ProtocolError(frames.PROTOCOL_ERROR, "this port speaks HTTP/2 (gRPC)")
            if len(held) < len(frames.PREFACE):
                return
            self._has_preface, position = True, len(frames.PREFACE)
            self._due = math.inf
        end = len(held)
        while end - position >= frames.HEAD_BYTES and not self.transport.is_closing():
            size, kind, flags, number = frames.read_head(held, position)
            if size > frames.MAX_FRAME_BYTES:
                raise ProtocolError(frames.FRAME_SIZE_ERROR, f"a frame has {size} bytes")
            start = position + frames.HEAD_BYTES
            if end - start < size:
                break
            position = start + size
            self._take(kind, flags, number, held[start:position])
        self._held = held[position:]

    def _take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._block is not None and (kind != frames.CONTINUATION or number != self._block[0]):
            raise ProtocolError(frames.PROTOCOL_ERROR, "a header block is interrupted")
        take = _TAKERS.get(kind)
        if take is None:  # GOAWAY, PRIORITY, and what this version doesn't know
            self._count_idle()
        else:
            take(self, flags, number, payload)

    def _take_headers(self, flags: int, number: int, payload: bytes) -> None:
        self._take_block(number, flags, frames.unpadded(payload, flags, has_priority=True))

    def _take_continuation(self, flags: int, number: int, payload: bytes) -> None:
        if self._block is None:
            raise ProtocolError(frames.PROTOCOL_ERROR, "a continuation of nothing")
        self._count_idle()
        _, first_flags, block = self._block
        self._take_block(number, first_flags | flags & frames.END_HEADERS, block + payload)

    def _take_reset(self, flags: int, number: int, payload: bytes) -> None:
        self._count_idle()
        frames.read_word(payload)
        if number > self._last or not number:
            raise ProtocolError(frames.PROTOCOL_ERROR, "a stream is reset that isn't there")
        if (stream := self._streams.get(number)) is not None:
            self._cancel(stream)

    def _take_ping(self, flags: int, number: int, payload: bytes) -> None:
        self._count_idle()
        if number or len(payload) != 8:
            raise ProtocolError(frames.FRAME_SIZE_ERROR, "a PING is not as it must be")
        if not flags & frames.ACK:
            self.write(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _take_push(self, flags: int, number: int, payload: bytes) -> None:
        raise ProtocolError(frames.PROTOCOL_ERROR, "clients can't push")

    def _take_settings(self, flags: int, number: int, payload: bytes) -> None:
        self._count_idle()
        if number or (flags & frames.ACK and payload):
            raise ProtocolError(frames.PROTOCOL_ERROR, "SETTINGS are not as they must be")
        if flags & frames.ACK:
            return
        window = self._first_window
        for name, value in frames.read_settings(payload):
            if name == frames.INITIAL_WINDOW_SIZE:
                if value > frames.MAX_WINDOW:
                    raise ProtocolError(frames.FLOW_CONTROL_ERROR, "a window is too large")
                window = value
        # The last of them alone: a frame may hold thousands, and a connection hundreds of streams.
        for stream in self._streams.values():
            stream.window += window - self._first_window
        self._first_window = window
        self.write(frames.frame(frames.SETTINGS, frames.ACK, 0))
        self._go_on()

    def _take_window(self, flags: int, number: int, payload: bytes) -> None:
        self._count_idle()
        more = frames.read_word(payload) & frames.MAX_WINDOW
        if more == 0:
            raise ProtocolError(frames.PROTOCOL_ERROR, "a window grows by 0")
        if not number:
            self._num_idle -= 1  # it may come with every answer
            self._room += more
            if self._room > frames.MAX_WINDOW:
                raise ProtocolError(frames.FLOW_CONTROL_ERROR, "a window is too large")
            self._go_on()
        elif (stream := self._streams.get(number)) is not None:
            stream.window += more
            if stream.window > frames.MAX_WINDOW:
                stream.reset(frames.FLOW_CONTROL_ERROR)
            elif stream.is_waiting:
                self._num_idle -= 1
                stream.go_on()

    def _take_block(self, number: int, flags: int, block: bytes) -> None:
        if len(block) > MAX_FIELDS_BYTES:
            raise ProtocolError(frames.ENHANCE_YOUR_CALM, "a header block is too large")
        if not flags & frames.END_HEADERS:
            self._block = number, flags, block
            return
        self._block = None
        fields = self._decoder.decode(block)
        stream = self._streams.get(number)
        if stream is not None:  # trailers of the request, which mean nothing here
            if not flags & frames.END_STREAM or stream.has_ended_body:
                raise ProtocolError(frames.PROTOCOL_ERROR, "headers in the middle of a body")
            self._end_body(stream)
            return
        if number <= self._last:
            return  # of a stream that was answered before its end
        if not number & 1:
            raise ProtocolError(frames.PROTOCOL_ERROR, "a client's streams have odd numbers")
        self._last = number
        if self._is_ending:
            self.write(frames.reset(number, frames.REFUSED_STREAM))
            return
        if len(self._streams) >= MAX_STREAMS:
            self._count_idle()
            self.write(frames.reset(number, frames.REFUSED_STREAM))
            return
        stream = Stream(self, number, fields, self._first_window)
        stream.due = self.loop.time() + self.connections.limits.read_timeout_s
        self._streams[number] = stream
        stream.receiver = self._begin(stream)
        if flags & frames.END_STREAM:
            self._end_body(stream)

    def _take_data(self, flags: int, number: int, payload: bytes) -> None:
        if number > self._last or not number:
            raise ProtocolError(frames.PROTOCOL_ERROR, "data of a stream that isn't there")
        self._num_untaken += len(payload)
        if self._num_untaken >= _WINDOW_OF_ALL // 2:
            self.write(frames.window_update(0, self._num_untaken))
            self._num_untaken = 0
        data = frames.unpadded(payload, flags) if flags & frames.PADDED else payload
        if not data and not flags & frames.END_STREAM:
            self._count_idle()
        stream = self._streams.get(number)
        if stream is None:
            return  # it was answered before its end
        if stream.has_ended_body:
            raise ProtocolError(frames.STREAM_CLOSED, "data after the end of a body")
        stream.receive(len(payload))
        if data:
            stream.receiver.add_data(data)
            stream.take(len(payload) - len(data))
        if flags & frames.END_STREAM and not stream.is_over:
            self._end_body(stream)

    def _end_body(self, stream: Stream) -> None:
        stream.has_ended_body = True
        if not stream.is_over:
            stream.receiver.end_data()

    def _count_idle(self) -> None:
        self._num_idle += 1
        if self._num_idle > _MAX_IDLE_FRAMES:
            raise ProtocolError(frames.ENHANCE_YOUR_CALM, "too many frames that bring nothing")

    # Writing and ending.

    def _flush(self) -> None:
        out, self._out = self._out, []
        if not self.transport.is_closing():
            self.transport.write(out[0] if len(out) == 1 else b"".join(out))

    def _go_on(self) -> None:
        """The client takes more: answers that wait go on."""
        for stream in tuple(self._waiting.values()):
            if self._is_paused or self._room <= 0:
                return
            if (
                stream.window <= 0 and stream.is_waiting
            ):  # a client may open the connection's window octet by octet
                continue
            stream.go_on()
            if not stream.is_waiting:
                self._waiting.pop(stream.number, None)

    def _give_up(self, stream: Stream) -> None:
        """A stream takes too long."""
        receiver = stream.receiver
        stream.has_ended_body = True
        stream.reset(frames.CANCEL)
        receiver.cancel()

    def _cancel(self, stream: Stream) -> None:
        """The client has given a stream up."""
        self._streams.pop(stream.number, None)
        self._waiting.pop(stream.number, None)
        stream.has_ended_body = True
        stream.forget()
        stream.receiver.cancel()

    def _end(self, code: int, words: str) -> None:
        """Ends the connection, since the client doesn't keep to the protocol."""
        self._is_ending = True
        self._held = b""
        self.write(frames.goaway(self._last, code, words))
        self._close_soon()

    def _close_soon(self) -> None:
        self.loop.call_soon(self.transport.close)  # after what was written in this turn


_TAKERS: dict[int, Callable[[Http2Connection, int, int, bytes], None]] = {
    frames.DATA: Http2Connection._take_data,
    frames.HEADERS: Http2Connection._take_headers,
    frames.CONTINUATION: Http2Connection._take_continuation,
    frames.WINDOW_UPDATE: Http2Connection._take_window,
    frames.RST_STREAM: Http2Connection._take_reset,
    frames.PING: Http2Connection._take_ping,
    frames.SETTINGS: Http2Connection._take_settings,
    frames.PUSH_PROMISE: Http2Connection._take_push,
}
"""What reads each kind of frame."""
