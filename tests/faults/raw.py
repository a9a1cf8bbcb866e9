"""Raw connections: bytes as a test writes them, and answers."""

import contextlib
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

TIMEOUT_S = 3


@dataclass
class Answer:
    """An answer, complete."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def closes(self) -> bool:
        return self.headers.get("connection") == "close"

    def problem(self) -> str:
        """The last part of its type, where it is a problem document."""
        assert self.headers["content-type"] == "application/problem+json", self
        found: dict[str, Any] = json.loads(self.body)
        assert found["status"] == self.status
        assert 20 < len(found["detail"]) < 400
        kind: str = found["type"]
        return kind.removeprefix("urn:saddlepoint:problem:")

    def error(self) -> str:
        """What it says, where it is an error as /v2 words it."""
        assert self.headers["content-type"] == "application/json", self
        found: dict[str, str] = json.loads(self.body)
        assert list(found) == ["error"]
        assert 20 < len(found["error"]) < 400
        return found["error"]


class Raw:
    """A connection."""

    def __init__(
        self, server: Any, *, receive_buffer: int | None = None, timeout_s: float = TIMEOUT_S
    ) -> None:
        """receive_buffer: of the kernel, in bytes; what it can't hold stays with the server."""
        self._held = bytearray()  # has come, isn't read yet
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout_s)
        self.socket.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def end_sending(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def answer(self, method: str = "GET") -> Answer:
        """The next answer; raises where none comes, or not all of it."""
        head = b"HTTP/1.1 100 "
        while head.startswith(b"HTTP/1.1 100 "):
            head = self._until(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            assert name not in headers, head
            headers[name.lower()] = value.strip()
        num_bytes = 0 if method == "HEAD" else int(headers["content-length"])
        while len(self._held) < num_bytes:
            self._receive()
        body, self._held = self._held[:num_bytes], self._held[num_bytes:]
        return Answer(int(first.split()[1]), headers, bytes(body))

    def read_interim(self) -> int:
        """The status of the next head, which has no body."""
        return int(self._until(b"\r\n\r\n").split()[1])

    def _until(self, end: bytes) -> bytes:
        while end not in self._held:
            self._receive()
        stop = self._held.index(end) + len(end)
        found, self._held = self._held[:stop], self._held[stop:]
        return bytes(found)

    def _receive(self) -> None:
        data = self.socket.recv(1 << 16)
        if not data:
            raise AssertionError(f"the connection ended after {bytes(self._held[:300])!r}")
        self._held += data

    def is_ended(self) -> bool:
        """True once the server has closed, by an end or a reset."""
        try:
            return not self._held and self.socket.recv(1) == b""
        except ConnectionError:
            return True

    def rest(self) -> bytes:
        """All that comes until the server closes."""
        data = bytes(self._held)
        with contextlib.suppress(ConnectionError):
            while chunk := self.socket.recv(1 << 16):
                data += chunk
        return data


@contextlib.contextmanager
def raw(server: Any, **options: Any) -> Iterator[Raw]:
    """A connection that ends with the block."""
    connection = Raw(server, **options)
    try:
        yield connection
    finally:
        connection.socket.close()
