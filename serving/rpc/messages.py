"""gRPC over HTTP/2: how messages, deadlines and outcomes are written (its PROTOCOL-HTTP2.md)."""

import enum
import re
import struct
from collections.abc import Callable

from serving.errors import Problem
from serving.http.messages import inflated
from serving.http2.hpack import Fields, encode

MEDIA_TYPE = b"application/grpc"
_PREFIX = struct.Struct(">?L")
PREFIX_BYTES = _PREFIX.size
_UNITS = {b"H": 3600e3, b"M": 60e3, b"S": 1e3, b"m": 1.0, b"u": 1e-3, b"n": 1e-6}
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_CODINGS = (b"gzip", b"deflate")


class Status(enum.IntEnum):
    """How a call ended."""

    OK = 0
    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class RpcError(Exception):
    """What ends a call without an answer."""

    def __init__(self, status: Status, words: str, trailing: Fields = ()) -> None:
        """trailing: metadata for the client."""
        super().__init__(words)
        self.status = status
        self.trailing = trailing

    def block(self) -> bytes:
        """The header block that ends the call."""
        words = _percent_encoded(str(self))
        status = (b"grpc-status", b"%d" % self.status)
        return encode((status, (b"grpc-message", words), *self.trailing))


HEAD = b"\x88" + encode(((b"content-type", MEDIA_TYPE),))
"""The header block of every answer: status 200 (RFC 7541's entry 8), and the type."""
OK = encode(((b"grpc-status", b"0"),))
"""The header block that ends an answer."""


def refusal(http_status: bytes) -> bytes:
    """The header block for what is no call of gRPC."""
    return encode(((b":status", http_status),))


def packed(message: bytes) -> bytes:
    """A message as it is sent."""
    return _PREFIX.pack(False, len(message)) + message


class Unpacker:
    """Takes messages out of a body that comes in pieces."""

    def __init__(self, coding: bytes | None, max_bytes: int) -> None:
        """Has nothing yet.

        Args:
            coding: of messages that are compressed.
            max_bytes: of a message.
        """
        self._coding = coding or b"identity"
        self._max_bytes = max_bytes
        self._held = bytearray()

    @property
    def num_bytes(self) -> int:
        """Of what has come of the next message."""
        return len(self._held)

    def add(self, data: bytes) -> list[bytes]:
        """Takes a piece; returns the messages that it completes.

        Raises:
            RpcError: a message is too long, or can't be decompressed.
        """
        if not self._held and len(data) >= PREFIX_BYTES:  # the usual case: nothing is copied twice
            is_compressed, size = _PREFIX.unpack_from(data)
            if not is_compressed and size == len(data) - PREFIX_BYTES <= self._max_bytes:
                return [data[PREFIX_BYTES:]]
        self._held += data
        found = []
        while len(self._held) >= PREFIX_BYTES:
            if self._held[0] > 1:
                raise RpcError(Status.INTERNAL, "a message has no prefix of gRPC")
            is_compressed, size = _PREFIX.unpack_from(self._held)
            if size > self._max_bytes:
                raise RpcError(
                    Status.RESOURCE_EXHAUSTED,
                    f"the message has {size} bytes, allowed are {self._max_bytes}; split it",
                )
            end = PREFIX_BYTES + size
            if len(self._held) < end:
                break
            message = bytes(self._held[PREFIX_BYTES:end])
            del self._held[:end]
            found.append(self._inflated(message) if is_compressed else message)
        return found

    def _inflated(self, message: bytes) -> bytes:
        if self._coding not in _CODINGS:
            raise RpcError(
                Status.UNIMPLEMENTED,
                f"grpc-encoding is {self._coding.decode('latin-1')!r}, allowed are gzip, deflate "
                "and identity",
                ((b"grpc-accept-encoding", b"identity,deflate,gzip"),),
            )
        try:
            return inflated(message, self._coding, self._max_bytes)
        except Problem as problem:
            too_large = problem.status == 413
            status = Status.RESOURCE_EXHAUSTED if too_large else Status.INVALID_ARGUMENT
            raise RpcError(status, problem.detail) from None


def timeout_ms(header: Callable[[bytes], bytes | None]) -> float | None:
    """The time that a client allows; None where it says none, or nothing that can be read."""
    found = _TIMEOUT.fullmatch(header(b"grpc-timeout") or b"")
    return None if found is None else int(found[1]) * _UNITS[found[2]]


def _percent_encoded(text: str) -> bytes:
    """Anything but printable ASCII is written as %XX, as is the percent sign."""
    return b"".join(
        b"%c" % octet if 32 <= octet <= 126 and octet != 37 else b"%%%02X" % octet
        for octet in text.encode()
    )
