"""Reads and writes tensors as the Open Inference Protocol v2 does: JSON, and the binary extension.

A request is a JSON object, followed by the bytes of those tensors that say `binary_data_size`, in
the order of the inputs, little-endian, in C order; a header of HTTP says how long the JSON is. An
element of BYTES is a uint32 length and so many bytes. This module knows nothing of HTTP, or of what
a tensor means.
"""

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from serving.api.schemas import V2Inference, V2OutputTensor
from serving.errors import InvalidRequestProblem, quoted
from serving.http.json_body import Most, decode

Array = npt.NDArray[Any]

_MAX_SIDES = 4
_AT_ONCE = 1 << 16
_MAX_ELEMENTS = 2**31 - 1
DATATYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}


class InputTensor(msgspec.Struct):
    """An input; data is absent where it comes as bytes."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] = {}
    data: Any = None


@dataclass(frozen=True)
class Limits:
    """What the inputs of a model may have."""

    elements: Mapping[str, int]
    """By their names."""
    lists: int
    """Of all of them, where they are nested."""

    def of(self, name: str) -> int:
        """The most elements of an input; for one that there isn't, those of the largest."""
        return self.elements.get(name) or max(self.elements.values())


class RequestedOutput(msgspec.Struct):
    """An output that is asked for."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(msgspec.Struct):
    """The JSON of a request; further fields belong to other extensions, and are ignored."""

    inputs: list[InputTensor]
    id: str = ""
    outputs: list[RequestedOutput] | None = None
    parameters: dict[str, Any] = {}


_decoder = msgspec.json.Decoder(InferRequest)
_EXAMPLE = '{"inputs": [{"name": "SEED", "datatype": "UINT64", "shape": [1], "data": [1]}]}'


def read(
    body: bytes | bytearray, json_bytes: int | None, limits: Limits
) -> tuple[InferRequest, dict[str, Array]]:
    """Reads a request and its tensors by name.

    Args:
        body: the whole body.
        json_bytes: the size of its JSON part, if tensors follow as bytes; None if all is JSON.
        limits: what its inputs may have.

    Raises:
        NotJsonProblem: the JSON part is malformed.
        InvalidRequestProblem: a length, shape or type is wrong.
    """
    num = len(body) if json_bytes is None else json_bytes
    if num > len(body):
        raise InvalidRequestProblem(
            f"Inference-Header-Content-Length is {num}, but the body has {len(body)} bytes"
        )
    most = Most(sum(limits.elements.values()), limits.lists)
    request = decode(_decoder, body[:num], example=_EXAMPLE, most=most)
    tensors: dict[str, Array] = {}
    rest = memoryview(body)[num:]
    for tensor in request.inputs:
        if tensor.name in tensors:
            raise _twice(tensor)
        size = tensor.parameters.get("binary_data_size")
        if size is None:
            tensors[tensor.name] = _from_json(tensor, limits.of(tensor.name))
            continue
        if not _is_count(size) or size > len(rest):
            raise InvalidRequestProblem(
                f"input {quoted(tensor.name)}: binary_data_size is {quoted(size)}, "
                f"{len(rest)} bytes are left"
            )
        tensors[tensor.name] = _from_bytes(tensor, rest[:size])
        rest = rest[size:]
    if len(rest):
        raise InvalidRequestProblem(
            f"{len(rest)} bytes follow the last tensor; the sizes of the inputs don't add up"
        )
    return request, tensors


def write(head: V2Inference, outputs: Sequence[tuple[str, Any, bool]]) -> tuple[bytes, int]:
    """Writes a response; returns it and the size of its JSON part.

    Args:
        head: the response without its outputs.
        outputs: name, data, and whether it follows the JSON as bytes. Data is an array, or a list
            of byte strings (BYTES), which JSON can't hold.
    """
    entries: list[V2OutputTensor] = []
    bodies: list[bytes] = []
    for name, data, binary in outputs:
        listed = isinstance(data, list)
        shape = [len(data)] if listed else list(data.shape)
        if binary:
            bodies.append(pack_bytes(data) if listed else np.ascontiguousarray(data).tobytes())
            more: dict[str, Any] = {"parameters": {"binary_data_size": len(bodies[-1])}}
        else:
            more = {"data": _numbers(data.ravel())}
        entries.append(V2OutputTensor(name, _datatype(data), shape, **more))
    text = msgspec.json.encode(msgspec.structs.replace(head, outputs=entries))
    return b"".join((text, *bodies)), len(text)


def _numbers(values: Array) -> msgspec.Raw:
    """Numbers as JSON; a list of all of them at once would take eight bytes for each."""
    pieces = (values[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE))
    texts = [msgspec.json.encode(piece.tolist())[1:-1] for piece in pieces]
    return msgspec.Raw(b"[" + b",".join(texts) + b"]")


def pack_bytes(elements: Sequence[bytes]) -> bytes:
    """Writes a tensor of BYTES."""
    return b"".join(part for data in elements for part in (struct.pack("<I", len(data)), data))


def unpack_bytes(data: bytes | memoryview) -> list[bytes]:
    """Splits a tensor of BYTES into its elements.

    Raises:
        InvalidRequestProblem: the length of an element goes past the end.
    """
    view, elements = memoryview(data), []
    while len(view):
        end = 4 + struct.unpack_from("<I", view)[0] if len(view) >= 4 else math.inf
        if end > len(view):
            raise InvalidRequestProblem("an element of a BYTES tensor goes past the tensor's end")
        elements.append(bytes(view[4 : int(end)]))
        view = view[int(end) :]
    return elements


def _datatype(data: Any) -> str:
    if isinstance(data, list):
        return "BYTES"
    return next(name for name, dtype in DATATYPES.items() if data.dtype == dtype)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _dtype(tensor: InputTensor) -> Any:
    if tensor.datatype not in DATATYPES:
        raise InvalidRequestProblem(
            f"input {quoted(tensor.name)}: datatype is {quoted(tensor.datatype)}, "
            f"known here are {', '.join(DATATYPES)}"
        )
    return DATATYPES[tensor.datatype]


def _num_elements(tensor: InputTensor) -> int:
    shape = tensor.shape
    # Before anything is multiplied: a JSON number may have a million digits.
    fits = len(shape) <= _MAX_SIDES and all(0 <= side <= _MAX_ELEMENTS for side in shape)
    if not fits or math.prod(side or 1 for side in shape) > _MAX_ELEMENTS:
        raise InvalidRequestProblem(
            f"input {quoted(tensor.name)}: shape is {quoted(shape)}, allowed are at most "
            f"{_MAX_SIDES} sides of 0 or more, and {_MAX_ELEMENTS} elements"
        )
    return math.prod(shape)


def collect(given: Iterable[tuple[InputTensor, bytes]]) -> dict[str, Array]:
    """Gathers tensors that come as bytes by their names.

    Raises:
        InvalidRequestProblem: a shape or type is wrong, or a name comes twice.
    """
    tensors: dict[str, Array] = {}
    for tensor, data in given:
        if tensor.name in tensors:
            raise _twice(tensor)
        tensors[tensor.name] = _from_bytes(tensor, data)
    return tensors


def _twice(tensor: InputTensor) -> InvalidRequestProblem:
    return InvalidRequestProblem(f"input {quoted(tensor.name)} is given twice; give it once")


def _from_bytes(tensor: InputTensor, data: bytes | memoryview) -> Array:
    dtype, num = np.dtype(_dtype(tensor)).newbyteorder("<"), _num_elements(tensor)
    if num * dtype.itemsize != len(data):
        raise InvalidRequestProblem(
            f"input {quoted(tensor.name)}: {tensor.datatype} {tensor.shape} has "
            f"{num * dtype.itemsize} bytes, {len(data)} are given"
        )
    return np.frombuffer(data, dtype).reshape(tensor.shape)


def _from_json(tensor: InputTensor, most: int) -> Array:
    dtype, num = _dtype(tensor), _num_elements(tensor)
    if num > most:  # before any element is looked at
        raise InvalidRequestProblem(
            f"input {quoted(tensor.name)}: shape {tensor.shape} has {num} elements, allowed are "
            f"{most}; split the request"
        )
    if not isinstance(tensor.data, list):
        raise InvalidRequestProblem(
            f"input {quoted(tensor.name)} has neither a list data nor binary_data_size"
        )
    values = _flat(tensor.data, num + 1)
    if len(values) != num:
        has = len(values) if len(values) < num else "more"
        raise InvalidRequestProblem(
            f"input {quoted(tensor.name)}: shape {tensor.shape} has {num} elements, data has {has}"
        )
    kinds = {"b": (bool,), "f": (int, float)}.get(np.dtype(dtype).kind, (int,))
    if not set(map(type, values)) <= set(kinds):  # JSON has no types that are made of these
        value = next(value for value in values if type(value) not in kinds)
        raise InvalidRequestProblem(
            f"input {quoted(tensor.name)}: {quoted(value)} is not of type {tensor.datatype}"
        )
    try:
        with np.errstate(over="ignore"):
            return np.array(values, dtype).reshape(tensor.shape)
    except (OverflowError, ValueError) as error:
        raise InvalidRequestProblem(
            f"input {quoted(tensor.name)}: a value is out of {tensor.datatype}'s range ({error})"
        ) from None


def _flat(data: list[Any], most: int) -> list[Any]:
    """Flattens nested lists, up to `most` elements.

    It does not recurse and visits each list once: a body may nest as deep as it is long.
    """
    values: list[Any] = []
    open_lists = [iter(data)]
    while open_lists and len(values) < most:
        for value in open_lists[-1]:
            if isinstance(value, list):
                open_lists.append(iter(value))
                break
            values.append(value)
            if len(values) >= most:
                break
        else:
            open_lists.pop()
    return values
