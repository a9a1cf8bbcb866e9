"""Answers on their way to a client: written at once, and looked after until they are taken."""

import asyncio
import functools
import http

from serving.http.memory import Hold
from serving.http.messages import CLOSE, Headers

# In every window a client must take so many bytes, or one part in so many of the whole answer if
# that is more: so an answer is held for that many windows at most.
_LEAST_BYTES = 64 << 10
_LEAST_SHARE = 16
_DRAINING_WINDOW_S = 1.0
# Larger bodies are not copied to stand behind their head.
_COPIED_BYTES = 64 << 10


class Unread:
    """What the kernel has not taken of an answer, since it was handed over."""

    def __init__(self, hold: Hold, num_bytes: int, now: float) -> None:
        """hold: of the request, which it keeps until all was taken. num_bytes: that are left."""
        self.hold = hold
        self._left = num_bytes
        self._least_bytes = max(_LEAST_BYTES, num_bytes // _LEAST_SHARE)
        self._last_taken = now
        self._begin_window(now)

    def see(self, left: int, now: float) -> None:
        """So many bytes are left now."""
        if left < self._left:
            self._left, self._last_taken = left, now

    def stalled_s(self, now: float) -> float:
        """For how long nothing was taken."""
        return now - self._last_taken

    def is_too_slow(self, now: float, window_s: float, *, draining: bool) -> bool:
        """True where the client has taken too little within the last window.

        While the server drains, it doesn't wait for who takes less than 64 KiB a second.
        """
        if draining:
            window_s = min(window_s, _DRAINING_WINDOW_S)
        if now - self._began < window_s:
            return False
        too_slow = self._left_then - self._left < (_LEAST_BYTES if draining else self._least_bytes)
        self._begin_window(now)
        return too_slow

    def _begin_window(self, now: float) -> None:
        self._began, self._left_then = now, self._left


class AnswerWriter:
    """Writes the answers of one connection; the next one only when the last was taken."""

    def __init__(self, transport: asyncio.Transport) -> None:
        """transport: it tells `is_paused`, through its protocol."""
        self._transport = transport
        self.is_paused = False
        """The kernel has not taken all of what was written."""
        self.unread: Unread | None = None
        """The answer that the client is taking, if there is one."""
        # So that "paused" means that: by default 64 KiB may be left.
        transport.set_write_buffer_limits(high=0)

    def write(
        self, status: int, headers: Headers, defaults: Headers, body: bytes, hold: Hold, now: float
    ) -> None:
        """Writes an answer; gives the hold back when the client has taken it."""
        head = head_of(status, (*defaults, *headers))
        if len(body) <= _COPIED_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        if self.is_paused:
            hold.resize(len(head) + len(body))
            self.unread = Unread(hold, self._transport.get_write_buffer_size(), now)
        else:
            hold.release()

    def write_piece(self, data: bytes, hold: Hold, now: float) -> None:
        """Writes more of an answer whose head is written; the last piece must be taken."""
        self._transport.write(data)
        if self.is_paused:
            hold.resize(len(data))
            self.unread = Unread(hold, self._transport.get_write_buffer_size(), now)

    def forget(self) -> None:
        """The answer was taken, or nobody will take it any more."""
        if self.unread is not None:
            self.unread.hold.release()
            self.unread = None

    def is_too_slow(self, now: float, window_s: float, *, draining: bool) -> bool:
        """True where the client takes too little of its answer."""
        if self.unread is None:
            return False
        self.unread.see(self._transport.get_write_buffer_size(), now)
        return self.unread.is_too_slow(now, window_s, draining=draining)


def with_connection(headers: Headers, *, ends: bool, to_http_1_0: bool) -> Headers:
    """Headers, and what becomes of the connection: said where it is not what the version means."""
    if ends:
        return headers if CLOSE in headers else (*headers, CLOSE)
    return (*headers, (b"connection", b"keep-alive")) if to_http_1_0 else headers


def head_of(status: int, headers: Headers) -> bytes:
    """An answer's head, and the line that ends it."""
    parts = [_status_line(status)]
    for name, value in headers:
        parts += (name, b": ", value, b"\r\n")
    parts.append(b"\r\n")
    head = b"".join(parts)
    if head.count(b"\n") != len(headers) + 2:  # else a value could begin another answer
        raise ValueError(f"a header of this answer holds a line end: {headers}")
    return head


@functools.cache
def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\n".encode("ascii")
