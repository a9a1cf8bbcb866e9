"""Tensors as the Open Inference Protocol v2 writes them: JSON, and the binary extension.

A request is a JSON object, followed by the bytes of those tensors that say `binary_data_size`, in
the order of the inputs, little-endian, in C order; a header of HTTP says how long the JSON is. An
element of BYTES is a uint32 length and so many bytes. Knows nothing of HTTP and of meanings.
"""

import math
import struct
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from serving.decoding import decode
from serving.errors import InvalidRequestProblem
from serving.wording import shown

Array = npt.NDArray[Any]

_MAX_SIDES = 4
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


class RequestedOutput(msgspec.Struct):
    """An output that is asked for."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(msgspec.Struct):
    """The JSON of a request; what else it says belongs to extensions that aren't ours."""

    inputs: list[InputTensor]
    id: str = ""
    outputs: list[RequestedOutput] | None = None
    parameters: dict[str, Any] = {}


_decoder = msgspec.json.Decoder(InferRequest)
_EXAMPLE = '{"inputs": [{"name": "SEED", "datatype": "UINT64", "shape": [1], "data": [1]}]}'


def read(body: bytes | bytearray, json_bytes: int | None) -> tuple[InferRequest, dict[str, Array]]:
    """A request and its tensors by name.

    Args:
        body: all of it.
        json_bytes: how much of it is JSON, where bytes follow; None where all is.

    Raises:
        NotJsonProblem: the JSON part isn't JSON.
        InvalidRequestProblem: a length, shape or type doesn't fit.
    """
    num = len(body) if json_bytes is None else json_bytes
    if num > len(body):
        raise InvalidRequestProblem(
            f"Inference-Header-Content-Length is {num}, but the body has {len(body)} bytes"
        )
    request = decode(_decoder, body[:num], example=_EXAMPLE)
    tensors: dict[str, Array] = {}
    rest = memoryview(body)[num:]
    for tensor in request.inputs:
        if tensor.name in tensors:
            raise InvalidRequestProblem(f"input {shown(tensor.name)} is given twice; give it once")
        size = tensor.parameters.get("binary_data_size")
        if size is None:
            tensors[tensor.name] = _from_json(tensor)
            continue
        if not _is_count(size) or size > len(rest):
            raise InvalidRequestProblem(
                f"input {shown(tensor.name)}: binary_data_size is {shown(size)}, "
                f"{len(rest)} bytes are left"
            )
        tensors[tensor.name] = _from_bytes(tensor, rest[:size])
        rest = rest[size:]
    if len(rest):
        raise InvalidRequestProblem(
            f"{len(rest)} bytes follow the last tensor; the sizes of the inputs don't add up"
        )
    return request, tensors


def write(head: dict[str, Any], outputs: Sequence[tuple[str, Any, bool]]) -> tuple[bytes, int]:
    """An answer, and how many bytes of it are JSON.

    Args:
        head: what stands beside the outputs.
        outputs: name, data and whether it goes as bytes. Data is an array, or a list of byte
            strings (BYTES), which can't go as JSON.
    """
    entries, bodies = [], []
    for name, data, binary in outputs:
        listed = isinstance(data, list)
        shape = [len(data)] if listed else list(data.shape)
        entry: dict[str, Any] = {"name": name, "datatype": _datatype(data), "shape": shape}
        if binary:
            bodies.append(pack_bytes(data) if listed else np.ascontiguousarray(data).tobytes())
            entry["parameters"] = {"binary_data_size": len(bodies[-1])}
        else:
            entry["data"] = data.ravel().tolist()
        entries.append(entry)
    text = msgspec.json.encode({**head, "outputs": entries})
    return b"".join((text, *bodies)), len(text)


def pack_bytes(elements: Sequence[bytes]) -> bytes:
    """BYTES as they cross the wire."""
    return b"".join(part for data in elements for part in (struct.pack("<I", len(data)), data))


def unpack_bytes(data: bytes | memoryview) -> list[bytes]:
    """The elements of BYTES.

    Raises:
        InvalidRequestProblem: a length goes past the end.
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
            f"input {shown(tensor.name)}: datatype is {shown(tensor.datatype)}, "
            f"known here are {', '.join(DATATYPES)}"
        )
    return DATATYPES[tensor.datatype]


def _num_elements(tensor: InputTensor) -> int:
    shape = tensor.shape
    # Before anything is multiplied: a JSON number may have a million digits.
    fits = len(shape) <= _MAX_SIDES and all(0 <= side <= _MAX_ELEMENTS for side in shape)
    if not fits or math.prod(side or 1 for side in shape) > _MAX_ELEMENTS:
        raise InvalidRequestProblem(
            f"input {shown(tensor.name)}: shape is {shown(shape)}, allowed are at most "
            f"{_MAX_SIDES} sides of 0 or more, and {_MAX_ELEMENTS} elements"
        )
    return math.prod(shape)


def _from_bytes(tensor: InputTensor, data: memoryview) -> Array:
    dtype, num = np.dtype(_dtype(tensor)).newbyteorder("<"), _num_elements(tensor)
    if num * dtype.itemsize != len(data):
        raise InvalidRequestProblem(
            f"input {shown(tensor.name)}: {tensor.datatype} {tensor.shape} has "
            f"{num * dtype.itemsize} bytes, {len(data)} are given"
        )
    return np.frombuffer(data, dtype).reshape(tensor.shape)


def _from_json(tensor: InputTensor) -> Array:
    dtype, num = _dtype(tensor), _num_elements(tensor)
    if not isinstance(tensor.data, list):
        raise InvalidRequestProblem(
            f"input {shown(tensor.name)} has neither a list data nor binary_data_size"
        )
    values = _flat(tensor.data, num + 1)
    if len(values) != num:
        has = len(values) if len(values) < num else "more"
        raise InvalidRequestProblem(
            f"input {shown(tensor.name)}: shape {tensor.shape} has {num} elements, data has {has}"
        )
    kinds = {"b": (bool,), "f": (int, float)}.get(np.dtype(dtype).kind, (int,))
    for value in values:
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise InvalidRequestProblem(
                f"input {shown(tensor.name)}: {shown(value)} is no {tensor.datatype}"
            )
    try:
        with np.errstate(over="ignore"):
            return np.array(values, dtype).reshape(tensor.shape)
    except (OverflowError, ValueError) as error:
        raise InvalidRequestProblem(
            f"input {shown(tensor.name)}: a value is out of {tensor.datatype}'s range ({error})"
        ) from None


def _flat(data: list[Any], most: int) -> list[Any]:
    """Nested lists as one, up to so many elements.

    Without recursion, and each list looked at once: a body may nest as deep as it is long.
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
