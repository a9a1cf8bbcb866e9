"""A connection of HTTP/2, on a transport that only notes what is written."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, cast

import pytest

from serving.connection.connections import Connections, Limits
from serving.http2 import connection as module
from serving.http2 import frames
from serving.http2.connection import MAX_STREAMS, WINDOW_BYTES, Http2Connection
from serving.http2.hpack import MAX_FIELDS_BYTES, encode
from serving.http2.stream import Receiver, Stream

HELLO = frames.PREFACE + frames.settings({})
FIELDS = encode(((b":method", b"POST"), (b":path", b"/x")))
ALL = frames.END_HEADERS | frames.END_STREAM


class Transport:
    """Notes what is written."""

    def __init__(self) -> None:
        self.data = b""
        self.closing = self.aborted = False
        self.options: list[tuple[int, ...]] = []

    def write(self, data: bytes) -> None:
        self.data += data

    def get_extra_info(self, name: str) -> Any:
        return ("192.0.2.7", 1) if name == "peername" else self

    def fileno(self) -> int:
        return 5

    def setsockopt(self, *option: int) -> None:
        self.options.append(option)

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True


class Noted:
    """Keeps a request."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.data = b""
        self.is_complete = self.is_cancelled = False

    def add_data(self, data: bytes) -> None:
        self.data += data

    def end_data(self) -> None:
        self.is_complete = True

    def cancel(self) -> None:
        self.is_cancelled = True


class Client:
    """The other side of a connection that has begun."""

    def __init__(self) -> None:
        self.requests: list[Noted] = []
        self.ended: list[str] = []
        limits = Limits(
            read_timeout_s=30,
            write_timeout_s=30,
            keep_alive_s=75,
            max_body_bytes=1 << 20,
            max_held_bytes=1 << 24,
        )
        self.connections = Connections(limits, on_ended=self.ended.append)
        self.opened: set[Http2Connection] = set()
        self.connection = Http2Connection(self.connections, self._begin, self.opened)
        self.transport = Transport()
        self.connection.connection_made(cast(asyncio.Transport, self.transport))

    def _begin(self, stream: Stream) -> Receiver:
        self.requests.append(Noted(stream))
        return self.requests[-1]

    async def send(self, data: bytes) -> list[tuple[int, int, int, bytes]]:
        """Sends octets; gives the frames that are answered: kind, flags, stream, payload."""
        self.connection.data_received(data)
        return await self.answered()

    async def answered(self) -> list[tuple[int, int, int, bytes]]:
        for _ in range(4):
            await asyncio.sleep(0)
        data, self.transport.data = self.transport.data, b""
        return list(_frames(data))

    async def hello(self) -> None:
        await self.send(HELLO)


def _frames(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    position = 0
    while position < len(data):
        size, kind, flags, number = frames.read_head(data, position)
        start = position + frames.HEAD_BYTES
        position = start + size
        yield kind, flags, number, data[start:position]


def request(number: int, body: bytes = b"", flags: int = 0) -> bytes:
    return frames.frame(frames.HEADERS, frames.END_HEADERS | flags, number, FIELDS) + (
        frames.frame(frames.DATA, frames.END_STREAM, number, body) if not flags else b""
    )


def run(test: Callable[[Client], Awaitable[None]]) -> None:
    async def within() -> None:
        await test(Client())

    asyncio.run(within())


def test_a_request_comes_in_pieces_and_is_answered() -> None:
    async def test(client: Client) -> None:
        sent = HELLO + request(1, b"body")
        for octet in sent:
            client.connection.data_received(bytes((octet,)))
        kinds = [kind for kind, *_ in await client.answered()]
        assert kinds == [frames.SETTINGS, frames.WINDOW_UPDATE, frames.SETTINGS]
        (noted,) = client.requests
        assert (noted.data, noted.is_complete) == (b"body", True)
        assert noted.stream.fields == ((b":method", b"POST"), (b":path", b"/x"))
        assert noted.stream.peer == "192.0.2.7"
        noted.stream.answer(b"head", b"data", b"trailers")
        assert await client.answered() == [
            (frames.HEADERS, frames.END_HEADERS, 1, b"head"),
            (frames.DATA, 0, 1, b"data"),
            (frames.HEADERS, ALL, 1, b"trailers"),
        ]
        noted.stream.answer(b"head", b"data", b"trailers")  # it is over
        assert await client.answered() == []
        client.connection.connection_lost(None)
        assert not client.opened
        assert not noted.is_cancelled

    run(test)


def test_answers_wait_for_both_windows() -> None:
    async def test(client: Client) -> None:
        await client.hello()
        await client.send(request(1) + request(3))
        first, second = (noted.stream for noted in client.requests)
        size = frames.DEFAULT_WINDOW + 1000
        first.answer(b"", bytes(size), b"end")
        second.answer(b"", b"x", b"")
        found = await client.answered()
        sent = [payload for kind, _, _, payload in found if kind == frames.DATA]
        assert sum(map(len, sent)) == frames.DEFAULT_WINDOW
        assert max(map(len, sent)) == frames.MAX_FRAME_BYTES
        assert client.connection.unread is not None
        assert client.connections.memory.held_bytes == 1001
        assert await client.send(frames.window_update(1, 500)) == []  # the other one is closed
        # Now it is open; the first stream has 500, the second all that it needs.
        found = await client.send(frames.window_update(0, 5000))
        assert sorted((n, len(p)) for k, _, n, p in found if k == frames.DATA) == [(1, 500), (3, 1)]
        # The rest fits when windows of streams are larger from the beginning.
        found = await client.send(
            frames.settings({frames.INITIAL_WINDOW_SIZE: frames.DEFAULT_WINDOW + 600})
        )
        assert [(k, n, len(p)) for k, _, n, p in found if n == 1] == [
            (frames.DATA, 1, 500),
            (frames.HEADERS, 1, 3),
        ]
        assert client.connections.memory.held_bytes == 0

    run(test)


def test_small_frames_do_not_cost_a_look_at_every_stream() -> None:
    """One frame of settings may hold thousands, and one for the window comes for 13 octets."""

    async def test(client: Client) -> None:
        await client.hello()
        await client.send(request(1))
        stream = client.requests[0].stream
        stream.answer(b"", bytes(frames.DEFAULT_WINDOW + 1), b"")
        changes: list[int] = []

        class Streams(dict[int, Stream]):
            def values(self) -> Any:
                changes.append(1)
                return super().values()

        client.connection._streams = Streams(client.connection._streams)
        setting = struct.pack(">HL", frames.INITIAL_WINDOW_SIZE, frames.DEFAULT_WINDOW)
        await client.send(frames.frame(frames.SETTINGS, 0, 0, setting * 2000))
        assert changes == [1]
        assert stream.window == 0
        calls: list[int] = []
        stream.go_on = lambda: calls.append(1)  # type: ignore[method-assign]
        await client.send(frames.window_update(0, 1) * 100)
        assert calls == []

    run(test)


def test_nothing_is_written_while_the_kernel_takes_nothing() -> None:
    async def test(client: Client) -> None:
        await client.hello()
        await client.send(request(1))
        client.connection.pause_writing()
        stream = client.requests[0].stream
        stream.answer(b"", b"data", b"")
        assert [kind for kind, *_ in await client.answered()] == [frames.HEADERS]
        client.connection.resume_writing()
        assert [kind for kind, *_ in await client.answered()] == [frames.DATA, frames.HEADERS]

    run(test)


def test_clients_may_send_more_when_what_they_sent_is_used() -> None:
    async def test(client: Client) -> None:
        await client.hello()
        await client.send(request(1, flags=0)[: frames.HEAD_BYTES + len(FIELDS)])
        stream = client.requests[0].stream
        assert await client.send(frames.frame(frames.DATA, 0, 1, bytes(1000))) == []
        stream.take(WINDOW_BYTES // 2 - 1)
        assert await client.answered() == []
        stream.take(1)
        ((kind, _, number, payload),) = await client.answered()
        assert (kind, number) == (frames.WINDOW_UPDATE, 1)
        assert frames.read_word(payload) == WINDOW_BYTES // 2

    run(test)


def test_a_request_that_is_given_up_is_cancelled() -> None:
    async def test(client: Client) -> None:
        await client.hello()
        await client.send(request(1) + request(3))
        await client.send(frames.reset(1, frames.CANCEL))
        first, second = client.requests
        assert (first.is_cancelled, second.is_cancelled) == (True, False)
        first.stream.answer(b"", b"", b"")
        assert await client.answered() == []
        client.connection.connection_lost(None)
        assert second.is_cancelled

    run(test)


def test_an_answer_before_the_end_of_a_body_ends_the_stream() -> None:
    async def test(client: Client) -> None:
        await client.hello()
        await client.send(frames.frame(frames.HEADERS, frames.END_HEADERS, 1, FIELDS))
        client.requests[0].stream.end(b"refused")
        found = await client.answered()
        assert [kind for kind, *_ in found] == [frames.HEADERS, frames.RST_STREAM]
        assert await client.send(frames.frame(frames.DATA, 0, 1, b"late")) == []
        assert client.requests[0].data == b""

    run(test)


def test_too_many_streams_are_refused() -> None:
    async def test(client: Client) -> None:
        await client.hello()
        numbers = range(1, 2 * MAX_STREAMS + 2, 2)
        ((kind, _, number, payload),) = await client.send(b"".join(map(request, numbers)))
        assert (kind, number) == (frames.RST_STREAM, numbers[-1])
        assert frames.read_word(payload) == frames.REFUSED_STREAM
        assert len(client.requests) == MAX_STREAMS

    run(test)


def word(kind: int, number: int, value: int) -> bytes:
    return frames.frame(kind, 0, number, struct.pack(">L", value))


_PART = frames.frame(frames.HEADERS, 0, 1, FIELDS)
_OPEN = frames.frame(frames.HEADERS, frames.END_HEADERS, 1, FIELDS)
_PING = frames.frame(frames.PING, 0, 0, bytes(8))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frames.PREFACE + struct.pack(">BHBBL", 1, 0, 0, 0, 1), frames.FRAME_SIZE_ERROR),
        (HELLO + frames.frame(frames.DATA, 0, 1, b"x"), frames.PROTOCOL_ERROR),
        (HELLO + request(2), frames.PROTOCOL_ERROR),
        (HELLO + _PART + _PING, frames.PROTOCOL_ERROR),
        (HELLO + frames.frame(frames.CONTINUATION, 0, 1, b""), frames.PROTOCOL_ERROR),
        (
            HELLO
            + _PART
            + frames.frame(frames.CONTINUATION, 0, 1, bytes(MAX_FIELDS_BYTES // 2)) * 3,
            frames.ENHANCE_YOUR_CALM,
        ),
        (HELLO + _PART + frames.frame(frames.CONTINUATION, 0, 1) * 3000, frames.ENHANCE_YOUR_CALM),
        (HELLO + _PING * 3000, frames.ENHANCE_YOUR_CALM),
        (HELLO + frames.settings({}) * 3000, frames.ENHANCE_YOUR_CALM),
        (HELLO + _OPEN + frames.frame(frames.DATA, 0, 1) * 3000, frames.ENHANCE_YOUR_CALM),
        (
            HELLO + b"".join(request(n) + frames.reset(n, 8) for n in range(1, 6001, 2)),
            frames.ENHANCE_YOUR_CALM,
        ),
        (HELLO + word(frames.WINDOW_UPDATE, 0, 0), frames.PROTOCOL_ERROR),
        (HELLO + word(frames.WINDOW_UPDATE, 0, 2**31 - 1), frames.FLOW_CONTROL_ERROR),
        (HELLO + frames.settings({4: 2**31}), frames.FLOW_CONTROL_ERROR),
        (HELLO + frames.frame(frames.SETTINGS, 0, 0, b"12345"), frames.FRAME_SIZE_ERROR),
        (HELLO + frames.frame(frames.SETTINGS, 0, 1), frames.PROTOCOL_ERROR),
        (HELLO + frames.frame(frames.PING, 0, 0, b"1"), frames.FRAME_SIZE_ERROR),
        (HELLO + frames.frame(frames.RST_STREAM, 0, 1, b"1"), frames.FRAME_SIZE_ERROR),
        (HELLO + frames.reset(5, 8), frames.PROTOCOL_ERROR),
        (HELLO + frames.frame(frames.PUSH_PROMISE, 0, 1), frames.PROTOCOL_ERROR),
        (HELLO + frames.frame(frames.HEADERS, ALL, 1, b"\x80"), frames.COMPRESSION_ERROR),
        (HELLO + request(1) + frames.frame(frames.DATA, 0, 1, b"x"), frames.STREAM_CLOSED),
        (
            HELLO
            + _OPEN
            + frames.frame(frames.DATA, 0, 1, bytes(frames.MAX_FRAME_BYTES))
            * (WINDOW_BYTES // frames.MAX_FRAME_BYTES)
            + frames.frame(frames.DATA, 0, 1, b"x"),
            frames.FLOW_CONTROL_ERROR,
        ),
        (HELLO + _OPEN + frames.frame(frames.DATA, frames.PADDED, 1, b"\x05x"), 1),
        (HELLO + _OPEN + frames.frame(frames.DATA, frames.PADDED, 1), frames.FRAME_SIZE_ERROR),
        (HELLO + _OPEN + _OPEN, frames.PROTOCOL_ERROR),
        (b"GET / HTTP/1.1\r\n\r\n", frames.PROTOCOL_ERROR),
    ],
)
def test_who_does_not_keep_to_the_protocol_is_told_why_and_cut_off(data: bytes, code: int) -> None:
    async def test(client: Client) -> None:
        found = await client.send(data)
        kind, _, _, payload = found[-1]
        assert kind == frames.GOAWAY
        assert struct.unpack(">L", payload[4:8]) == (code,)
        assert payload[8:]
        assert client.transport.closing
        assert await client.send(request(9)) == []
        client.connection.connection_lost(None)
        assert client.connections.memory.held_bytes == 0

    run(test)


def test_padding_and_priority_are_left_out() -> None:
    async def test(client: Client) -> None:
        await client.hello()
        flags = frames.END_HEADERS | frames.PADDED | frames.HAS_PRIORITY
        head = frames.frame(frames.HEADERS, flags, 1, b"\x02" + bytes(5) + FIELDS + b"\0\0")
        padded = frames.PADDED | frames.END_STREAM
        await client.send(head + frames.frame(frames.DATA, padded, 1, b"\x03body\0\0\0"))
        (noted,) = client.requests
        assert (noted.data, noted.is_complete) == (b"body", True)
        found = await client.send(frames.frame(frames.PING, 0, 0, b"12345678"))
        assert found == [(frames.PING, frames.ACK, 0, b"12345678")]
        # A frame of a kind that isn't known, and trailers of a request.
        part = frames.frame(frames.HEADERS, 0, 3, FIELDS[:9])
        await client.send(frames.frame(77, 0, 0, b"?") + part)
        rest = frames.frame(frames.CONTINUATION, frames.END_HEADERS, 3, FIELDS[9:])
        await client.send(rest + frames.frame(frames.HEADERS, ALL, 3, FIELDS))
        assert client.requests[1].is_complete
        assert client.requests[1].stream.fields == noted.stream.fields

    run(test)


def test_nobody_keeps_a_stream_or_a_connection_for_ever() -> None:
    async def test(client: Client) -> None:
        now = asyncio.get_running_loop().time()
        await client.hello()
        await client.send(request(1) + frames.frame(frames.HEADERS, frames.END_HEADERS, 3, FIELDS))
        answered, half = client.requests
        answered.stream.answer(b"", bytes(1 << 20), b"")
        await client.answered()
        client.connection.check(now + 1)
        assert not answered.is_cancelled
        client.connection.check(now + 31)
        found = await client.answered()
        assert [(kind, number) for kind, _, number, _ in found] == [
            (frames.RST_STREAM, 1),
            (frames.RST_STREAM, 3),
        ]
        assert answered.is_cancelled
        assert half.is_cancelled
        assert client.ended == ["write-timeout"]
        assert client.connections.memory.held_bytes == 0
        client.connection.check(now + 100)
        assert not client.transport.aborted  # who is idle may stay: the kernel asks whether it is
        assert client.transport.options == [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
        client.connection.pause_writing()
        client.connection.check(now + 140)
        assert client.transport.aborted
        silent = Client()
        silent.connection.check(now + 31)
        assert silent.transport.aborted

    run(test)


def test_at_the_end_what_has_begun_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_GOAWAY_S", 0.0)

    async def test(client: Client) -> None:
        await client.hello()
        await client.send(request(1))
        client.connection.shutdown()
        found = await client.answered()
        assert [kind for kind, *_ in found] == [frames.GOAWAY, frames.GOAWAY]
        assert [struct.unpack(">LL", payload)[0] for *_, payload in found] == [2**31 - 1, 1]
        ((kind, _, number, _),) = await client.send(request(3))
        assert (kind, number) == (frames.RST_STREAM, 3)
        assert not client.transport.closing
        client.requests[0].stream.answer(b"", b"data", b"")
        assert [number for _, _, number, _ in await client.answered()] == [1, 1, 1]
        assert client.transport.closing

    run(test)
