"""The body of an HTTP/1 request, as its bytes come: of a known length, or in chunks (RFC 9112, 7).

A reader takes what has come, gives the body's own bytes and says how much it has used; the rest
belongs to the next request.
"""

import re
from typing import Protocol

from serving.connection.request_head import MAX_HEAD_BYTES, check_trailer, malformed

_MAX_SIZE_LINE = 4096
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")


class BodyReader(Protocol):
    """How much of a body is still to come."""

    complete: bool
    left: int | None
    """Bytes that are still to come; None where nobody knows."""

    def read(self, data: bytes) -> tuple[list[bytes], int]:
        """The body's bytes in what has come, and how much of it was used.

        Raises:
            NotHttpProblem: this is no body.
        """
        ...


class SizedBody:
    """A body whose length the head has told."""

    __slots__ = ("complete", "left")

    def __init__(self, length: int) -> None:
        """length: in bytes, more than 0."""
        self.left: int | None = length
        self.complete = False

    def read(self, data: bytes) -> tuple[list[bytes], int]:
        """Takes up to `left` bytes."""
        assert self.left is not None
        taken = data if len(data) <= self.left else data[: self.left]
        self.left -= len(taken)
        self.complete = self.left == 0
        return [taken], len(taken)


class ChunkedBody:
    """A body in chunks. What extensions and trailers say is checked for its form, and dropped."""

    __slots__ = ("_in_chunk", "_in_trailer", "_num_dropped", "complete", "left")

    def __init__(self) -> None:
        """Nothing has come yet."""
        self.left: int | None = None
        self.complete = False
        self._in_chunk = 0  # bytes of the chunk that are to come, and 2 for the line end after it
        self._in_trailer = False
        self._num_dropped = 0  # bytes of extensions and trailers

    def read(self, data: bytes) -> tuple[list[bytes], int]:
        """Takes as many chunks, and as much of one, as have come."""
        pieces: list[bytes] = []
        position = 0
        while position < len(data) and not self.complete:
            if self._in_chunk > 2:
                piece = data[position : position + self._in_chunk - 2]
                pieces.append(piece)
                position += len(piece)
                self._in_chunk -= len(piece)
            elif self._in_chunk:
                if not b"\r\n".startswith(data[position : position + 2]):
                    raise malformed("a chunk is longer than it says")
                if len(data) - position < 2:
                    break
                position, self._in_chunk = position + 2, 0
            else:
                end = data.find(b"\r\n", position, position + MAX_HEAD_BYTES + 2)
                if end < 0:
                    _check_begun(data[position:], self._in_trailer)
                    break
                self._take_line(data[position:end])
                position = end + 2
        return pieces, position

    def _take_line(self, line: bytes) -> None:
        """The size of a chunk, or a trailer."""
        if self._in_trailer:
            if line:
                check_trailer(line)
                self._drop(len(line))
            self.complete = not line
            return
        match = _SIZE.fullmatch(line)
        if match is None:
            raise malformed("the size of a chunk is not a hexadecimal number")
        self._drop(len(line) - len(match[1]))
        size = int(match[1], 16)
        self._in_trailer, self._in_chunk = size == 0, size + 2 if size else 0

    def _drop(self, num_bytes: int) -> None:
        self._num_dropped += num_bytes
        if self._num_dropped > MAX_HEAD_BYTES:
            raise malformed(
                f"the chunks' extensions and trailers have more than {MAX_HEAD_BYTES} bytes"
            )


def _check_begun(line: bytes, in_trailer: bool) -> None:
    """Refuses a line that can't end well."""
    if len(line) > (MAX_HEAD_BYTES if in_trailer else _MAX_SIZE_LINE) or b"\n" in line:
        raise malformed("a line between chunks is too long, or ends without CR")
