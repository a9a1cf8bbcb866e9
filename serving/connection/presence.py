"""Whether a client that sends no more has gone altogether: what TCP doesn't tell by itself.

It shows only when something is sent to it: so a long answer is preceded by some 100 Continue, which
every client of HTTP/1.1 must be able to ignore (RFC 9110, 15.2). The kernel of a client that has
gone answers with a reset. asyncio, which reads no more, doesn't see that; the kernel's own state of
the connection says it.
"""

import asyncio
import math
import socket

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# Since the client has sent its last byte: it may leave later, too, and some clients (Go's) take no
# more than five interim answers.
_ASK_AFTER_S = (0.5, 2.0, 6.0, 14.0)
_TCP_INFO: int | None = getattr(socket, "TCP_INFO", None)  # Linux alone has it
_TCP_CLOSED, _TCP_CLOSE_WAIT = 7, 8


class Presence:
    """Of one connection's client, while it waits for an answer."""

    def __init__(self, transport: asyncio.Transport) -> None:
        """transport: of the connection."""
        self._transport = transport
        self._silent_since = math.inf
        self._num_asked = 0

    def reset(self) -> None:
        """Another request has begun."""
        self._silent_since, self._num_asked = math.inf, 0

    def begin(self, now: float) -> float:
        """The client has sent all that it will; gives the time for the first `is_gone`."""
        if self._silent_since == math.inf:
            self._silent_since = now
        return self._silent_since + _ASK_AFTER_S[0]

    def is_gone(self, now: float, *, may_ask: bool) -> bool:
        """True where it is known to have gone; asks, where it is time to.

        may_ask: it speaks HTTP/1.1, and no part of an answer is under way.
        """
        if _state_of(self._transport) == _TCP_CLOSED:
            return True
        asked = self._num_asked
        due = asked < len(_ASK_AFTER_S) and now - self._silent_since >= _ASK_AFTER_S[asked]
        if may_ask and due:
            self._num_asked += 1
            self._transport.write(CONTINUE)
        return False

    def sends_no_more(self) -> bool:
        """True where it has ended its side: also before that was read."""
        return _state_of(self._transport) in (_TCP_CLOSED, _TCP_CLOSE_WAIT)


def _state_of(transport: asyncio.Transport) -> int | None:
    """The state of a connection, as Linux numbers them; None where it isn't known."""
    connection = transport.get_extra_info("socket")
    if _TCP_INFO is None or connection is None:
        return None
    try:
        state: int = connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 1)[0]
    except OSError:  # it is no TCP
        return None
    return state
