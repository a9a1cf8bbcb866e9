"""Calls that are passed on to the routes, without a server."""

import asyncio
from typing import Any

from serving.http.memory import Hold, Memory
from serving.http.messages import Receive, Scope, Send
from serving.rpc.call import Caller


class Call:
    """What gRPC says of a call."""

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def time_remaining(self) -> None:
        return None


def test_bodies_are_counted_and_refused_where_there_is_no_memory() -> None:
    memory = Memory(1 << 20)
    held: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        held.append(memory.held_bytes)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async def ask() -> None:
        caller, call = Caller(app, memory, 1000), Call()
        context: Any = call
        for size in (10, 1 << 19):
            assert (await caller.ask(context, "POST", "/x", bytes(size))).status == 200
        await asyncio.sleep(0)
        assert held == [0, 1 << 19]
        assert memory.held_bytes == 0
        other = Hold(memory)
        assert other.try_add(memory.max_bytes)
        refused = await caller.ask(context, "POST", "/x", bytes(1 << 19))
        assert (refused.status, refused.headers) == (429, {b"retry-after": b"1"})
        assert "bytes are held for clients" in refused.problem
        assert (await caller.ask(context, "POST", "/x", bytes(10))).status == 200

    asyncio.run(ask())
