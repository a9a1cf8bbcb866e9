"""The end of taking connections: whatever a client could believe to be accepted is answered.

Closing a listening socket resets what lies in its queue and what is in the middle of a handshake
(the client, who has the kernel's SYN-ACK, has sent its request perhaps). So first no new handshake
is begun: a filter on the socket drops SYN packets. Their senders try again after a second, when
nobody listens any more, and are refused: the one end of a connection of which a client knows that
nothing was begun. Handshakes under way end meanwhile, and are taken.
"""

import asyncio
import contextlib
import ctypes
import logging
import socket
import struct

import litserve
import litserve.server

from serving import logs

logger = logging.getLogger(__name__)

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
    """Lets the kernel end the handshakes of a listening TCP socket, and begin none.

    Raises:
        OSError: this kernel has no socket filters (it isn't Linux, or a sandbox).
    """
    steps = b"".join(struct.pack("HBBI", *step) for step in _DROP_SYN)
    program = ctypes.create_string_buffer(steps)
    filter_ = struct.pack("HP", len(_DROP_SYN), ctypes.addressof(program))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_)


class LastCallServer(litserve.server._Server):  # type: ignore[misc]
    """uvicorn's server, which at shutdown still takes the connections that the kernel accepted."""

    def run(self, worker_id: int, sockets: list[socket.socket] | None = None) -> None:
        """Part of LitServe: the process's work."""
        logs.name_process(f"http-{worker_id}")
        super().run(worker_id, sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Part of uvicorn."""
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
