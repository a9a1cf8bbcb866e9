"""Calls over gRPC without a server: their messages, memory and outcomes."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from google.protobuf.message import DecodeError

from serving.http.memory import Hold, Memory
from serving.http2.hpack import Decoder, Fields
from serving.http2.stream import Stream
from serving.rpc.exchange import Call, Exchange, Method
from serving.rpc.messages import RpcError, Status, Unpacker, packed, timeout_ms

MAX_BYTES = 1 << 20


class FakeStream:
    """Notes what is answered."""

    def __init__(self, memory: Memory, *fields: tuple[bytes, bytes]) -> None:
        self.fields: Fields = fields
        self.peer = "192.0.2.7"
        self.hold = Hold(memory)
        self.due = 0.0
        self.num_taken = 0
        self.sent: list[bytes] = []
        self.outcome: dict[bytes, bytes] = {}

    def take(self, num_bytes: int) -> None:
        self.num_taken += num_bytes

    def answer(self, head: bytes, data: bytes, trailers: bytes) -> None:
        self.send(data)
        self.end(trailers)

    def send_head(self, head: bytes) -> None:
        assert dict(Decoder().decode(head))[b":status"] == b"200"

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    async def taken(self) -> None:
        pass

    def end(self, trailers: bytes) -> None:
        if not self.outcome:  # nothing is sent after it
            self.outcome = dict(Decoder().decode(trailers))

    @property
    def status(self) -> int:
        return int(self.outcome[b"grpc-status"])


class Text(str):
    """A message."""

    __slots__ = ()

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's
        return self.encode()

    @classmethod
    def FromString(cls, data: bytes) -> "Text":  # noqa: N802
        if data == b"?":
            raise DecodeError("a question")
        return cls(data.decode())


async def upper(request: Text, call: Call) -> Text:
    if request == "fail":
        raise ValueError("unforeseen")
    if request == "refuse":
        raise RpcError(Status.NOT_FOUND, "50 % \u00e4", ((b"retry-after", b"1"),))
    return Text(request.upper())


async def uppers(requests: AsyncIterator[Text], call: Call) -> AsyncIterator[Text]:
    async for request in requests:
        yield Text(request.upper())


UNARY = Method(upper, Text.FromString)
STREAMED = Method(uppers, Text.FromString, takes_many=True, gives_many=True)


def ask(method: Method, *pieces: bytes, coding: bytes = b"identity", held: int = 0) -> FakeStream:
    """Sends a body in pieces, and its end."""
    memory = Memory(MAX_BYTES)
    stream = FakeStream(memory, (b"grpc-encoding", coding))
    if held:
        assert Hold(memory).try_add(held)

    async def run() -> None:
        tasks: set[asyncio.Task[None]] = set()
        exchange = Exchange(cast(Stream, stream), method, tasks, MAX_BYTES)
        for piece in pieces:
            exchange.add_data(piece)
            await asyncio.sleep(0)
        exchange.end_data()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())
    return stream


def test_a_message_may_come_in_any_pieces() -> None:
    message = packed(b"abc")
    for pieces in ([message], [message[:2], message[2:7], message[7:]], [message[:5], b"abc"]):
        stream = ask(UNARY, *pieces)
        assert (stream.sent, stream.status) == ([packed(b"ABC")], 0)
        assert stream.num_taken == len(message)


def test_several_messages_are_answered_one_by_one() -> None:
    stream = ask(STREAMED, packed(b"a") + packed(b"b") + packed(b"c")[:3], packed(b"c")[3:])
    assert (stream.sent, stream.status) == ([packed(b"A"), packed(b"B"), packed(b"C")], 0)
    assert stream.due > 1e9  # it may last
    assert (ask(STREAMED).sent, ask(STREAMED).status) == ([], 0)


def test_what_the_client_may_send_is_what_was_used() -> None:
    """Less, and a call that lasts comes to a halt; more, and the client's window overflows."""
    long = packed(b"a" * 1000)
    compressed = b"\x01" + packed(gzip.compress(b"a" * 1000))[1:]
    for pieces in (
        [packed(b"a") + packed(b"b"), packed(b""), packed(b"c")],
        [long[:100], long[100:900], long[900:] + long[:50], long[50:]],
        [compressed[:9], compressed[9:], compressed],
    ):
        stream = ask(STREAMED, *pieces, coding=b"gzip")
        assert (stream.status, stream.num_taken) == (0, sum(map(len, pieces)))


def test_messages_without_bytes_are_counted_too() -> None:
    stream = ask(STREAMED, packed(b"") * 10_000, held=MAX_BYTES)
    assert stream.status == Status.RESOURCE_EXHAUSTED


def test_a_call_that_has_begun_to_answer_fails_without_a_second_head() -> None:
    stream = ask(STREAMED, packed(b"a"), b"", b"\x07abcdefgh")
    assert (stream.sent, stream.status) == ([packed(b"A")], Status.INTERNAL)
    assert b":status" not in stream.outcome


@pytest.mark.parametrize(
    ("pieces", "status", "words"),
    [
        ([], Status.INTERNAL, "missing"),
        ([packed(b"a")[:4]], Status.INTERNAL, "cut off"),
        ([packed(b"a") + packed(b"b")], Status.UNIMPLEMENTED, "one message"),
        ([b"\x07abcdefgh"], Status.INTERNAL, "no prefix"),
        ([packed(b"?")], Status.INVALID_ARGUMENT, "a question"),
        ([b"\x00\x7f\xff\xff\xff"], Status.RESOURCE_EXHAUSTED, "allowed are 1048576"),
        ([b"\x01\x00\x00\x00\x01x"], Status.UNIMPLEMENTED, "allowed are gzip"),
        ([packed(b"fail")], Status.INTERNAL, "report it"),
        ([packed(b"refuse")], Status.NOT_FOUND, "50 %25 %C3%A4"),
    ],
)
def test_what_can_not_be_answered_is_refused(
    pieces: list[bytes], status: Status, words: str
) -> None:
    stream = ask(UNARY, *pieces)
    assert (stream.sent, stream.status) == ([], status)
    assert words in stream.outcome[b"grpc-message"].decode()


def test_messages_may_be_compressed() -> None:
    for coding, data in ((b"gzip", gzip.compress(b"abc")), (b"deflate", zlib.compress(b"abc"))):
        compressed = b"\x01" + packed(data)[1:]
        assert ask(UNARY, compressed, coding=coding).sent == [packed(b"ABC")]
    bomb = b"\x01" + packed(gzip.compress(bytes(2 * MAX_BYTES)))[1:]
    assert ask(UNARY, bomb, coding=b"gzip").status == Status.RESOURCE_EXHAUSTED
    broken = b"\x01" + packed(b"abc")[1:]
    assert ask(UNARY, broken, coding=b"gzip").status == Status.INVALID_ARGUMENT


def test_large_bodies_are_counted_and_refused_where_there_is_no_memory() -> None:
    message = packed(b"a" * (MAX_BYTES // 2))
    stream = ask(UNARY, message[:1000], message[1000:])
    assert stream.status == 0
    assert stream.hold.num_bytes == MAX_BYTES // 2
    refused = ask(UNARY, message[:1000], message[1000:], held=MAX_BYTES)
    assert refused.status == Status.RESOURCE_EXHAUSTED
    assert refused.outcome[b"retry-after"] == b"1"
    assert ask(UNARY, packed(b"a"), held=MAX_BYTES).status == 0
    for half in (message[:-1], packed(b"a" * 100_000)):  # one that lasts, and is never complete
        assert ask(STREAMED, half, held=MAX_BYTES).status == Status.RESOURCE_EXHAUSTED


def test_a_shortcut_is_told_that_the_client_has_left() -> None:
    left: list[bool] = []

    def shortcut(request: Text, exchange: Exchange) -> bool:
        exchange.on_cancel = lambda: left.append(True)
        return True

    async def run() -> None:
        stream: Any = FakeStream(Memory(MAX_BYTES))
        method = Method(upper, Text.FromString, shortcut=shortcut)
        exchange = Exchange(stream, method, set(), MAX_BYTES)
        exchange.add_data(packed(b"a"))
        exchange.end_data()
        assert not left
        exchange.cancel()

    asyncio.run(run())
    assert left == [True]


def test_deadlines() -> None:
    for text, wanted in (
        *((b"2H", 7.2e6), (b"3M", 1.8e5), (b"1S", 1e3), (b"10m", 10.0), (b"500u", 0.5)),
        *((b"1000000n", 1.0), (b"", None), (b"1", None), (b"123456789S", None), (b"-1S", None)),
    ):
        found = timeout_ms({b"grpc-timeout": text}.get)
        assert found == pytest.approx(wanted) if wanted is not None else found is None


def test_what_is_unpacked_is_not_kept() -> None:
    unpacker = Unpacker(None, 100)
    assert unpacker.add(packed(b"a") + packed(b"b")[:4]) == [b"a"]
    assert unpacker.num_bytes == 4
    assert unpacker.add(packed(b"b")[4:]) == [b"b"]
    assert unpacker.num_bytes == 0


def refuses(*_: object) -> Any:
    raise RpcError(Status.UNAUTHENTICATED, "no key")


@pytest.mark.parametrize("handler", [upper, uppers])
def test_who_is_not_let_in_has_nothing_parsed(handler: Any) -> None:
    streams = handler is uppers
    method = Method(handler, pytest.fail, pytest.fail, refuses, streams, streams)
    stream = ask(method, packed(b"x" * 100_000))
    assert (stream.status, stream.sent) == (Status.UNAUTHENTICATED, [])


def test_what_is_measured_and_refused_is_not_parsed() -> None:
    stream = ask(Method(upper, pytest.fail, refuses), packed(b"x" * 5000))
    assert stream.status == Status.UNAUTHENTICATED
    assert ask(Method(upper, Text.FromString, refuses), packed(b"small")).status == Status.OK


def test_what_parsing_takes_is_counted() -> None:
    message = packed(b"x" * 70_000)
    for times, status in ((2, Status.OK), (20, Status.RESOURCE_EXHAUSTED)):
        method = Method(upper, Text.FromString, lambda data, times=times: len(data) * times)
        assert ask(method, message, held=MAX_BYTES - 500_000).status == status
