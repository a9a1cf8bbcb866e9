"""Messages of protobuf, looked through before they are parsed.

A field takes two bytes on the wire, and some hundred when it is parsed: eight megabytes of empty
ones are gigabytes, and seconds in which nobody else is answered. So a message that isn't small has
its fields counted first, as they stand on the wire (https://protobuf.dev/programming-guides/encoding/).
What is passed over, a string or packed numbers, costs nothing, and counting stops at the bound.
"""

from dataclasses import dataclass, field

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from serving.rpc.messages import RpcError, Status

SMALL_BYTES = 4 << 10
"""Messages up to it are parsed at once: they have two thousand fields at most."""
MAX_FIELDS = 10_000
"""Of a message and all that it holds."""
MAX_ENTRIES = 64
"""Of a repeated field that isn't numbers: inputs, outputs, parameters."""
_COPIES = 2  # of a message's bytes, while it is parsed
_NUMBER_BYTES = 16  # that a packed byte may become: eight, in an array that grows by doubling
_VARINT, _BYTES = 0, 2
_FIXED = {1: 8, 5: 4}


@dataclass
class Kind:
    """What is known of a message's fields, by their numbers."""

    names: dict[int, str] = field(default_factory=dict)
    entries: set[int] = field(default_factory=set)
    """Those that are counted one by one."""
    messages: "dict[int, Kind]" = field(default_factory=dict)
    """Those that are messages."""
    numbers: set[int] = field(default_factory=set)
    """Those that may be packed numbers."""


def kind_of(described: Descriptor) -> Kind:
    """Notes what is counted in a message; none of ours holds itself."""
    kind = Kind()
    for each in described.fields:
        kind.names[each.number] = each.name
        is_message = each.type == FieldDescriptor.TYPE_MESSAGE
        is_text = each.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
        if is_message:
            kind.messages[each.number] = kind_of(each.message_type)
        if each.is_repeated and (is_message or is_text):
            kind.entries.add(each.number)
        elif each.is_repeated:
            kind.numbers.add(each.number)
    return kind


def num_bytes(kind: Kind, data: bytes) -> int:
    """The memory that parsing a message takes at most.

    Raises:
        RpcError: it has too many fields, or can't be decoded.
    """
    scan = _Scan(data)
    try:
        scan.message(kind, 0, len(data), "")
    except IndexError:
        raise _malformed("it is cut off") from None
    return len(data) * _COPIES + scan.num_packed * _NUMBER_BYTES


class _Scan:
    """Goes through one message."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._num_fields = 0
        self.num_packed = 0
        """Bytes of numbers that are packed."""

    def message(self, kind: Kind, at: int, end: int, path: str) -> None:
        found: dict[int, int] = {}
        while at < end:
            tag, at = self._varint(at)
            number, wire_type = tag >> 3, tag & 7
            self._num_fields += 1
            if self._num_fields > MAX_FIELDS:
                raise _refusal("the message", self._num_fields, "fields", MAX_FIELDS)
            if number in kind.entries:
                num = found[number] = found.get(number, 0) + 1
                if num > MAX_ENTRIES:
                    raise _refusal(path + kind.names[number], num, "entries", MAX_ENTRIES)
            size, at = self._size(wire_type, at)
            if at + size > end:
                raise _malformed("a field goes past its message's end")
            if wire_type == _BYTES:
                self._bytes(kind, number, at, size, path)
            at += size

    def _bytes(self, kind: Kind, number: int, at: int, size: int, path: str) -> None:
        inner = kind.messages.get(number)
        if inner is not None:
            self.message(inner, at, at + size, f"{path}{kind.names[number]}.")
        elif number in kind.numbers:
            self.num_packed += size

    def _size(self, wire_type: int, at: int) -> tuple[int, int]:
        """How long a field's value is, and where it begins."""
        if wire_type == _BYTES:
            return self._varint(at)
        if wire_type == _VARINT:
            return 0, self._varint(at)[1]
        if wire_type not in _FIXED:  # a group's fields would be taken for those of the message
            raise _malformed(f"wire type {wire_type} is none of proto3")
        return _FIXED[wire_type], at

    def _varint(self, at: int) -> tuple[int, int]:
        data, shift, value = self._data, 0, 0
        while shift < 70:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
            shift += 7
        raise _malformed("a number is too long")


def _malformed(why: str) -> RpcError:
    return RpcError(Status.INVALID_ARGUMENT, f"the message can't be decoded: {why}")


def _refusal(where: str, num: int, of: str, most: int) -> RpcError:
    return RpcError(
        Status.INVALID_ARGUMENT,
        f"{where} has {num} {of} or more, allowed are {most}; give fewer, or split the request",
    )
