"""An answer in pieces, to a client that has ended its side: nothing comes between the pieces."""

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest

from serving.connection.connection import Connection
from serving.connection.connections import Connections, Limits
from serving.connection.exchange import Exchange
from serving.connection.request_head import Head
from serving.http.memory import Hold

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LIMITS = Limits(
    read_timeout_s=5, write_timeout_s=5, keep_alive_s=5, max_body_bytes=100, max_held_bytes=1 << 20
)


class Quiet(Exchange):
    """Hears what happens, and does nothing about it."""

    def add_body(self, data: bytes) -> None:
        pass

    def end_body(self) -> None:
        pass

    def cancel(self) -> None:
        pass


@pytest.mark.parametrize("first", [True, False])
def test_who_ends_his_side_gets_the_pieces_alone(first: bool) -> None:
    """first: before a piece was sent, or while the second one is being made."""
    going_on = asyncio.Event()

    async def pieces() -> AsyncGenerator[bytes]:
        yield b"abc"
        await going_on.wait()
        yield b"def"

    class Streaming(Connection):
        def begin(self, head: Head) -> Exchange:
            async def answer() -> None:
                await self.stream(200, ((b"content-length", b"6"),), pieces())

            self.start_task(answer())
            return Quiet(head, Hold(self.connections.memory))

    async def talk() -> bytes:
        loop = asyncio.get_running_loop()
        connections = Connections(LIMITS)
        state: Any = SimpleNamespace(connections=set(), tasks=set(), default_headers=())
        server = await loop.create_server(lambda: Streaming(connections, state), "127.0.0.1")
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(GET)
        if first:
            writer.write_eof()
        answered = await reader.readuntil(b"abc")
        if not first:
            writer.write_eof()
        (connection,) = state.connections
        while not connection._is_half_closed:
            await asyncio.sleep(0.01)
        for after_s in (1, 3, 7):
            connections.sweep(loop.time() + after_s)
        going_on.set()
        answered += await reader.read()
        writer.close()
        server.close()
        return answered

    answered = asyncio.run(talk())
    assert answered == b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabcdef"
