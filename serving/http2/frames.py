"""The frames of HTTP/2 (RFC 9113, sections 4 and 6)."""

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends first."""
HEAD_BYTES = 9
MAX_FRAME_BYTES = 16 << 10
"""Of a payload that is taken: the protocol's least, and its default."""
MAX_WINDOW = 2**31 - 1
DEFAULT_WINDOW = 65535

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = range(5)
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(5, 10)

END_STREAM, ACK, END_HEADERS, PADDED, HAS_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = range(4)
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL = range(5, 9)
COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 9, 11

MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, FRAME_SIZE, MAX_HEADER_LIST_SIZE = 3, 4, 5, 6
"""Settings that are looked at, or sent."""

_HEAD = struct.Struct(">BHBBL")
_SETTING = struct.Struct(">HL")
_WORD = struct.Struct(">L")
_TWO = struct.Struct(">LL")


class ProtocolError(Exception):
    """What ends a connection: a code of the protocol, and words for the debug data."""

    def __init__(self, code: int, words: str) -> None:
        """code: one of the protocol's, sent in GOAWAY."""
        super().__init__(words)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame; its payload has at most MAX_FRAME_BYTES."""
    size = len(payload)
    return _HEAD.pack(size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def read_head(data: bytes, position: int) -> tuple[int, int, int, int]:
    """The head of a frame: size of the payload, kind, flags, stream."""
    high, low, kind, flags, stream = _HEAD.unpack_from(data, position)
    return high << 16 | low, kind, flags, stream & MAX_WINDOW


def settings(values: dict[int, int]) -> bytes:
    """A frame of settings."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*entry) for entry in values.items()))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """The settings of a frame, in their order.

    Raises:
        ProtocolError: a setting is cut off.
    """
    if len(payload) % _SETTING.size:
        raise ProtocolError(FRAME_SIZE_ERROR, "a setting is cut off")
    return list(_SETTING.iter_unpack(payload))


def window_update(stream: int, num_bytes: int) -> bytes:
    """Lets the other side send so much more; stream 0 is the whole connection."""
    return frame(WINDOW_UPDATE, 0, stream, _WORD.pack(num_bytes))


def reset(stream: int, code: int) -> bytes:
    """Ends a stream."""
    return frame(RST_STREAM, 0, stream, _WORD.pack(code))


def goaway(last: int, code: int, words: str = "") -> bytes:
    """No stream above `last` is answered."""
    return frame(GOAWAY, 0, 0, _TWO.pack(last, code) + words.encode())


def read_word(payload: bytes) -> int:
    """The number that a frame of four octets holds.

    Raises:
        ProtocolError: it has another size.
    """
    if len(payload) != _WORD.size:
        raise ProtocolError(FRAME_SIZE_ERROR, f"a payload has {len(payload)} bytes, must have 4")
    number: int = _WORD.unpack(payload)[0]
    return number


def unpadded(payload: bytes, flags: int, *, has_priority: bool = False) -> bytes:
    """A payload without padding and priority.

    Raises:
        ProtocolError: the padding is longer than the payload.
    """
    start = padding = 0
    if flags & PADDED:
        if not payload:
            raise ProtocolError(FRAME_SIZE_ERROR, "a padded frame is empty")
        start, padding = 1, payload[0]
    if has_priority and flags & HAS_PRIORITY:
        start += 5
    if start + padding > len(payload):
        raise ProtocolError(PROTOCOL_ERROR, "padding is longer than its frame")
    return payload[start : len(payload) - padding]
