"""Protocol Buffers' wire format, as far as reading and rewriting an ONNX graph needs it.

A server has neither `onnx` nor `protobuf` (protobuf.dev/programming-guides/encoding). This module
knows no message.
"""

from collections.abc import Iterator

_VARINT, _BYTES = 0, 2
_FIXED = {1: 8, 5: 4}

Field = tuple[int, int | slice]
"""Number, and the value of a varint or the position of the bytes."""


def fields(data: memoryview, where: slice) -> Iterator[Field]:
    """Yields the fields of the message at `where`.

    Raises:
        ValueError, IndexError: the bytes are not a message.
    """
    position, end = where.start, where.stop
    while position < end:
        key, position = _varint(data, position)
        if key >> 32:  # others would take its lower bits for a field's number
            raise ValueError(f"byte {position} is not valid Protocol Buffers")
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, position = _varint(data, position)
            yield number, value
            continue
        if kind == _BYTES:
            size, position = _varint(data, position)
        else:
            size = _FIXED.get(kind, -1)
        if size < 0 or position + size > end or not number:
            raise ValueError(f"byte {position} is not valid Protocol Buffers")
        if kind == _BYTES:
            yield number, slice(position, position + size)
        position += size


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError(f"byte {position} is not valid Protocol Buffers")


def encoded(number: int, value: int | bytes | memoryview) -> bytes:
    """Returns a field: a varint where value is a number from 0 on, else bytes or a message."""
    if isinstance(value, int):
        return _encoded_varint(number << 3 | _VARINT) + _encoded_varint(value)
    return b"".join((_encoded_varint(number << 3 | _BYTES), _encoded_varint(len(value)), value))


def _encoded_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
