"""Header compression of HTTP/2 (RFC 7541): reads what clients send, writes what needs no state.

A client repeats its headers as indices into a table, so the same few octets come with every
request. What they mean changes only with the table: until then it is looked up whole.
"""

from collections import deque

from serving.http2.huffman import decode as decode_huffman

Fields = tuple[tuple[bytes, bytes], ...]

TABLE_BYTES = 4096
"""The size of the table that clients may fill: the protocol's own default."""
MAX_FIELDS_BYTES = 16 << 10
"""Of all fields of a request, as RFC 7541 counts them."""
_OVERHEAD_BYTES = 32
_MAX_KNOWN = 64
_MAX_KNOWN_BYTES = 1024  # of a block that is kept: those of clients that index have some tens

_STATIC: Fields = tuple(
    (name.encode(), value.encode())
    for name, value in (
        *((":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/")),
        *((":path", "/index.html"), (":scheme", "http"), (":scheme", "https")),
        *((":status", status) for status in ("200", "204", "206", "304", "400", "404", "500")),
        *(("accept-charset", ""), ("accept-encoding", "gzip, deflate"), ("accept-language", "")),
        *((name, "") for name in ("accept-ranges", "accept", "access-control-allow-origin")),
        *((name, "") for name in ("age", "allow", "authorization", "cache-control")),
        *((name, "") for name in ("content-disposition", "content-encoding", "content-language")),
        *((name, "") for name in ("content-length", "content-location", "content-range")),
        *((name, "") for name in ("content-type", "cookie", "date", "etag", "expect", "expires")),
        *((name, "") for name in ("from", "host", "if-match", "if-modified-since")),
        *((name, "") for name in ("if-none-match", "if-range", "if-unmodified-since")),
        *((name, "") for name in ("last-modified", "link", "location", "max-forwards")),
        *((name, "") for name in ("proxy-authenticate", "proxy-authorization", "range")),
        *((name, "") for name in ("referer", "refresh", "retry-after", "server", "set-cookie")),
        *((name, "") for name in ("strict-transport-security", "transfer-encoding")),
        *((name, "") for name in ("user-agent", "vary", "via", "www-authenticate")),
    )
)
"""RFC 7541, appendix A; the first has index 1."""


class HpackError(ValueError):
    """A header block that can't be read: the tables of both sides don't agree any more."""


class Decoder:
    """Reads the header blocks of one connection, in their order."""

    def __init__(self) -> None:
        """The table is empty."""
        self._dynamic: deque[tuple[bytes, bytes]] = deque()  # the newest first
        self._num_bytes = 0
        self._max_bytes = TABLE_BYTES
        self._known: dict[bytes, Fields] = {}

    def decode(self, block: bytes) -> Fields:
        """Reads a header block.

        Raises:
            HpackError: it is malformed, or its fields are larger than MAX_FIELDS_BYTES.
        """
        fields = self._known.get(block)
        if fields is not None:
            return fields
        try:
            fields, changed = self._read(block)
        except (IndexError, ValueError) as error:
            raise HpackError(str(error)) from None
        if changed or len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        if not changed and len(block) <= _MAX_KNOWN_BYTES:
            self._known[block] = fields
        return fields

    def _read(self, block: bytes) -> tuple[Fields, bool]:
        """The fields, and whether the table has changed."""
        fields: list[tuple[bytes, bytes]] = []
        position = size = 0
        changed = False
        while position < len(block):
            first = block[position]
            if first & 0x80:
                index, position = _integer(block, position, 7)
                field = self._entry(index)
            elif first & 0xE0 == 0x20:
                if fields:
                    raise ValueError("the table is resized in the middle of a block")
                self._max_bytes, position = _integer(block, position, 5)
                if self._max_bytes > TABLE_BYTES:
                    raise ValueError("the table is made larger than it may be")
                self._evict()
                changed = True
                continue
            else:
                is_kept = first & 0x40
                index, position = _integer(block, position, 6 if is_kept else 4)
                if index:
                    name = self._entry(index)[0]
                else:
                    name, position = _string(block, position)
                value, position = _string(block, position)
                field = name, value
                if is_kept:
                    self._add(field)
                    changed = True
            size += _size(field)
            if size > MAX_FIELDS_BYTES:
                raise ValueError(f"the fields have more than {MAX_FIELDS_BYTES} bytes")
            fields.append(field)
        return tuple(fields), changed

    def _entry(self, index: int) -> tuple[bytes, bytes]:
        if index == 0:
            raise ValueError("there is no index 0")
        if index <= len(_STATIC):
            return _STATIC[index - 1]
        return self._dynamic[index - 1 - len(_STATIC)]

    def _add(self, field: tuple[bytes, bytes]) -> None:
        self._dynamic.appendleft(field)
        self._num_bytes += _size(field)
        self._evict()

    def _evict(self) -> None:
        while self._num_bytes > self._max_bytes:
            self._num_bytes -= _size(self._dynamic.pop())


def encode(fields: Fields) -> bytes:
    """Writes fields as literals that no table keeps: any number of them, in any order."""
    parts: list[bytes] = []
    for name, value in fields:
        parts += (b"\0", _length(len(name)), name, _length(len(value)), value)
    return b"".join(parts)


def _length(number: int) -> bytes:
    if number < 127:
        return bytes((number,))
    rest, octets = number - 127, bytearray(b"\x7f")
    while rest >= 128:
        octets.append(rest & 127 | 128)
        rest >>= 7
    octets.append(rest)
    return bytes(octets)


def _size(field: tuple[bytes, bytes]) -> int:
    return len(field[0]) + len(field[1]) + _OVERHEAD_BYTES


def _integer(block: bytes, position: int, bits: int) -> tuple[int, int]:
    """A number that begins with the last bits of an octet; and where it ends."""
    most = (1 << bits) - 1
    number = block[position] & most
    position += 1
    if number < most:
        return number, position
    for shift in range(0, 28, 7):
        octet = block[position]
        position += 1
        number += (octet & 127) << shift
        if octet < 128:
            return number, position
    raise ValueError("a number has too many octets")


def _string(block: bytes, position: int) -> tuple[bytes, int]:
    is_huffman = block[position] & 0x80
    length, position = _integer(block, position, 7)
    end = position + length
    if end > len(block):
        raise ValueError("a string goes past the end of its block")
    data = block[position:end]
    return decode_huffman(data) if is_huffman else data, end
