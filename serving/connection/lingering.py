"""The end of a connection whose client may still send.

Closing a socket whose client still sends makes the kernel reset the connection, and the client's
kernel then throws away what it has not yet handed over: the answer too. So after an answer that
ends a connection, what comes is read and thrown away for a while (RFC 9112, 9.6).
"""

import asyncio

_LINGER_S, _LINGER_DRAINING_S = 10.0, 1.0
_LINGER_BYTES = 256 << 20


class Lingering:
    """A connection that sends nothing more, and throws away what comes."""

    def __init__(self, transport: asyncio.Transport, now: float, *, briefly: bool) -> None:
        """Says to the client that nothing more will come."""
        self._transport = transport
        self._num_bytes = 0
        self.due = now + (_LINGER_DRAINING_S if briefly else _LINGER_S)
        transport.write_eof()

    def throw_away(self, data: bytes) -> None:
        """More has come; ends where it is too much."""
        self._num_bytes += len(data)
        if self._num_bytes > _LINGER_BYTES:
            self._transport.close()
