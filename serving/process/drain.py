"""Stops accepting connections without losing any: who may think to be connected is answered.

Closing a listening socket resets the connections in its queue, and those in the middle of a
handshake, whose clients may have sent a request already. So handshakes are stopped first: a filter
on the socket drops SYN packets. Their senders try again after a second, when the socket is closed,
and are refused, so they know that nothing was begun. Meanwhile the handshakes that are under way
end, and their connections are accepted.
"""

import asyncio
import contextlib
import ctypes
import gc
import logging
import signal
import socket
import struct
from collections.abc import Iterator

import litserve
import litserve.server

from serving import signals
from serving.observability import logs
from serving.process.accepting import Acceptors
from serving.process.shared import Shared

logger = logging.getLogger(__name__)

UVICORN_VERSION = "0.54.0"
"""The release that the list was checked against."""
UVICORN_INTERNALS: dict[str, str | None] = {
    "uvicorn.config.Config.http_protocol_class": None,
    "uvicorn.config.Config.loaded_app": None,
    "uvicorn.server.ServerState.connections": None,
    "uvicorn.server.ServerState.default_headers": None,
    "uvicorn.server.ServerState.tasks": None,
    "uvicorn.server.Server.config": None,
    "uvicorn.server.Server.lifespan": None,
    "uvicorn.server.Server.server_state": None,
    "uvicorn.server.Server.servers": None,
    "uvicorn.server.Server.capture_signals": "self",
    "uvicorn.server.Server.run": "self, sockets",
    "uvicorn.server.Server.shutdown": "self, sockets",
    "uvicorn.server.Server.startup": "self, sockets",
}
"""Members of uvicorn that `serving` overrides or uses and that are not public: by their path, with
a method's parameters, or None for an attribute of instances. `serving.connection.Connection` is the
protocol that uvicorn's server makes: it calls its constructor, and `shutdown`."""

_HANDSHAKE_S = 0.2  # longer than a round trip to another continent
_SO_ATTACH_FILTER = 26  # asm-generic/socket.h; Python has no name for it
# A classic BPF program over a TCP packet. Each step: code, jump if true, jump if false, operand.
_DROP_SYN = (
    (0x30, 0, 0, 13),  # load the byte of the flags
    (0x45, 0, 1, 0x02),  # is SYN set?
    (0x06, 0, 0, 0),  # then keep nothing of the packet,
    (0x06, 0, 0, 0xFFFFFFFF),  # else all
)


def begin_no_handshake(listener: socket.socket) -> None:
    """Makes the kernel begin no more handshakes on a listening socket; those under way go on.

    A Unix socket has none: connections to it are there or refused, and from now on are refused.

    Raises:
        OSError: this kernel has no socket filters (it isn't Linux, or is a sandbox).
    """
    if listener.family == socket.AF_UNIX:
        listener.shutdown(socket.SHUT_RD)
        return
    steps = b"".join(struct.pack("HBBI", *step) for step in _DROP_SYN)
    program = ctypes.create_string_buffer(steps)
    filter_ = struct.pack("HP", len(_DROP_SYN), ctypes.addressof(program))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_)


class DrainingServer(litserve.server._Server):  # type: ignore[misc]
    """uvicorn's server, which at shutdown serves the connections that the kernel has accepted."""

    shared: Shared
    """Of the server whose HTTP process this is; set before the fork."""

    def run(self, worker_id: int, sockets: list[socket.socket] | None = None) -> None:
        """Names the process for the logs, and serves until it is stopped."""
        logs.name_process(f"http-{worker_id}")
        logs.write_in_thread()
        self.shared.metrics.attach_http(worker_id)
        signals.leave_to_parent(signal.SIGQUIT, signal.SIGHUP)
        # What is there now stays: each full collection would look at all of it, and hold all
        # requests up for tens of milliseconds.
        gc.freeze()
        try:
            super().run(worker_id, sockets)
        except Exception:
            logger.critical("an exception ends this HTTP process", exc_info=True)
            raise
        finally:
            logs.close()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Part of uvicorn; what came since the fork is heard once its handlers are there."""
        with super().capture_signals():
            signals.release()
            yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens; where there are several HTTP processes, they take connections in turn."""
        if sockets is None or len(self.shared.bells) == 1:
            await super().startup(sockets)
            return
        await super().startup([])
        for listener in sockets:
            listener.listen(self.config.backlog)
        turns = self.config.loaded_app.service.turns
        self.servers = [Acceptors(sockets, turns, self._protocol)]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops handshakes, accepts what has come, then lets uvicorn drain the connections."""
        # A duplicate keeps a listening socket open that uvicorn closes, with its queue.
        queues = [listener.dup() for listener in sockets or []]
        try:
            for queue in queues:
                begin_no_handshake(queue)
        except OSError as error:
            logger.warning("connections made during shutdown may be reset: %s", error)
        else:
            await asyncio.sleep(_HANDSHAKE_S)
        for server in self.servers:
            server.close()
        accepted = []
        for queue in queues:
            with queue:
                queue.setblocking(False)
                with contextlib.suppress(OSError):
                    while True:
                        accepted.append(queue.accept()[0])
        for connection in accepted:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        protocol: asyncio.Protocol = self.config.http_protocol_class(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol
