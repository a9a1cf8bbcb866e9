"""The bytes of a connection to requests, one after the other. Knows no socket and no time."""

from serving.connection.request_body import BodyReader, ChunkedBody, SizedBody
from serving.connection.request_head import Head, find_end, read_head


class RequestReader:
    """What has come and isn't read yet, and where in a request it stands."""

    __slots__ = ("_input", "_num_searched", "_root_path", "body")

    def __init__(self, root_path: str = "") -> None:
        """Nothing has come. root_path: taken off the beginning of paths that have it."""
        self._root_path = root_path
        self._input = b""
        self._num_searched = 0
        self.body: BodyReader | None = None
        """Of the request whose head was read last, until all of it is read."""

    def feed(self, data: bytes) -> None:
        """More has come."""
        self._input = self._input + data if self._input else data

    @property
    def num_bytes(self) -> int:
        """That aren't read yet."""
        return len(self._input)

    def read_head(self) -> Head | None:
        """The next request's head, or None where it isn't complete.

        Raises:
            Problem: what comes is no request that can be answered.
        """
        start = 0
        while self._input.startswith(b"\r\n", start):
            start += 2  # RFC 9112, 2.2: some clients send an empty line too many
        if start:
            self._input = self._input[start:]
        data = self._input
        if not data or data == b"\r":
            return None
        end = find_end(data, self._num_searched)
        if end < 0:
            self._num_searched = max(0, len(data) - 3)
            return None
        head = read_head(data[:end], self._root_path)
        self._input, self._num_searched = data[end + 4 :], 0
        if head.has_body:
            self.body = ChunkedBody() if head.chunked else SizedBody(head.length)
        return head

    def read_body(self) -> list[bytes]:
        """What has come of the body; afterwards `body` is None where that was the end.

        Raises:
            Problem: what comes is no body.
        """
        assert self.body is not None
        pieces, num_used = self.body.read(self._input)
        self._input = self._input[num_used:]
        if self.body.complete:
            self.body = None
        return pieces
