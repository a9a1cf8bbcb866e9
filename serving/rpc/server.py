"""The gRPC server of one HTTP process; all of them listen on the same port.

It is written on asyncio, as our HTTP is, and not on grpcio: that takes three times the processor's
time of a small image for each call, in threads of its own (`benchmarks/serving/rpc.py`).
"""

import asyncio
import contextlib
import functools
import socket
from collections.abc import AsyncIterator, Mapping

from serving.connection.connections import Connections
from serving.http2.connection import Http2Connection
from serving.http2.stream import Receiver, Stream
from serving.rpc.exchange import Exchange, Method
from serving.rpc.messages import HEAD, MEDIA_TYPE, RpcError, Status, refusal

_LAST_WORDS_S = 1.0  # for calls that are cancelled at the end to say so


class RpcServer:
    """Listens, and gives each call to its method."""

    def __init__(self, connections: Connections, methods: Mapping[bytes, Method]) -> None:
        """Does nothing yet.

        Args:
            connections: of this process.
            methods: by their paths.
        """
        self._connections = connections
        self._methods = methods
        self._open: set[Http2Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def running(
        self, listeners: list[socket.socket], drain_timeout_s: float
    ) -> AsyncIterator[None]:
        """Listens meanwhile; at the end waits for the calls that are being answered.

        Raises:
            OSError: it can't listen.
        """
        loop = asyncio.get_running_loop()
        make = functools.partial(Http2Connection, self._connections, self._begin, self._open)
        servers = [await loop.create_server(make, sock=listener) for listener in listeners]
        try:
            yield
        finally:
            for server in servers:
                server.close()
            for connection in tuple(self._open):
                connection.shutdown()
            await self._until_closed(drain_timeout_s)
            for task in tuple(self._tasks):
                task.cancel()
            await self._until_closed(_LAST_WORDS_S)
            for connection in tuple(self._open):
                connection.end("drain")

    async def _until_closed(self, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(*(connection.closed for connection in tuple(self._open)))

    def _begin(self, stream: Stream) -> Receiver:
        """Finds the method of a request; refuses what is none."""
        fields = dict(stream.fields)
        if fields.get(b":method") != b"POST":
            return _refused(stream, refusal(b"405"))
        if not fields.get(b"content-type", b"").startswith(MEDIA_TYPE):
            return _refused(stream, refusal(b"415"))
        path = fields.get(b":path", b"")
        method = self._methods.get(path)
        if method is None:
            words = f"method {path[:200].decode('latin-1')!r} is not known"
            return _refused(stream, HEAD + RpcError(Status.UNIMPLEMENTED, words).block())
        max_bytes = self._connections.limits.max_body_bytes
        return Exchange(stream, method, self._tasks, max_bytes)


def _refused(stream: Stream, block: bytes) -> Receiver:
    stream.end(block)
    return _Nobody()


class _Nobody:
    """Gets what still comes of a request that is refused."""

    def add_data(self, data: bytes) -> None:
        """Part of `Receiver`."""

    def end_data(self) -> None:
        """Part of `Receiver`."""

    def cancel(self) -> None:
        """Part of `Receiver`."""
