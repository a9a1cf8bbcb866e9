"""The tensors of an inference over gRPC, and those of the same inference over HTTP.

Over both a tensor is its bytes, little-endian, in C order; HTTP has JSON before them.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec
import numpy as np

_CONTENTS = {
    "BOOL": ("bool_contents", "?"),
    "UINT8": ("uint_contents", "<u1"),
    "UINT16": ("uint_contents", "<u2"),
    "UINT32": ("uint_contents", "<u4"),
    "UINT64": ("uint64_contents", "<u8"),
    "INT8": ("int_contents", "<i1"),
    "INT16": ("int_contents", "<i2"),
    "INT32": ("int_contents", "<i4"),
    "INT64": ("int64_contents", "<i8"),
    "FP32": ("fp32_contents", "<f4"),
    "FP64": ("fp64_contents", "<f8"),
}
_FEW = 1024  # numbers cost nothing up to it, so that their limit needn't be known
_AT_ONCE = 1 << 16  # Python's numbers take four times the memory of their tensor
_MAX_SIDES = 64  # of a shape; more are not copied, to be refused

Most: TypeAlias = Callable[[str], int]
"""The most numbers of an input, by its name."""


class TensorError(Exception):
    """A request whose tensors can't be read; its text says why."""


def http_body(request: Any, most: Most) -> tuple[bytes, int]:
    """Writes a ModelInferRequest as the body of a request over HTTP, and the size of its JSON.

    most: asked where there are many.

    Raises:
        TensorError: contents don't fit their tensor.
    """
    raw = contents(request, most)
    inputs = [
        {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
            "parameters": {**parameters(tensor.parameters), "binary_data_size": len(data)},
        }
        for tensor, data in zip(request.inputs, raw, strict=True)
    ]
    head: dict[str, Any] = {"inputs": inputs, "parameters": parameters(request.parameters)}
    if request.id:
        head["id"] = request.id
    if request.outputs:
        head["outputs"] = [
            {"name": output.name, "parameters": _as_bytes(parameters(output.parameters))}
            for output in request.outputs
        ]
    else:
        head["parameters"]["binary_data_output"] = True
    text = msgspec.json.encode(head)
    return b"".join((text, *raw)), len(text)


def contents(request: Any, most: Most) -> list[bytes]:
    """The bytes of each tensor of a ModelInferRequest; most: asked where there are many.

    Raises:
        TensorError: they don't fit their tensor, or are too many.
    """
    for tensor in request.inputs:
        if len(tensor.shape) > _MAX_SIDES:
            raise TensorError(
                f"input {tensor.name[:80]!r}: shape has {len(tensor.shape)} sides, allowed are the "
                "tensor's own"
            )
    raw = list(request.raw_input_contents)
    if not raw:
        return [_packed(tensor, most) for tensor in request.inputs]
    if len(raw) != len(request.inputs):
        raise TensorError(
            f"raw_input_contents has {len(raw)} entries for {len(request.inputs)} inputs; give one "
            "for each, or none"
        )
    return raw


def fill(response: Any, body: bytes, json_bytes: int) -> Any:
    """Fills a ModelInferResponse with the body of a response over HTTP; returns it."""
    head = msgspec.json.decode(memoryview(body)[:json_bytes])
    response.model_name, response.model_version = head["model_name"], head["model_version"]
    response.id = head.get("id", "")
    start = json_bytes
    for output in head["outputs"]:
        response.outputs.add(
            name=output["name"], datatype=output["datatype"], shape=output["shape"]
        )
        stop = start + output["parameters"]["binary_data_size"]
        response.raw_output_contents.append(body[start:stop])
        start = stop
    return response


def parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """A map of parameters as plain values; those without one are left out."""
    found = {}
    for name, parameter in given.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is not None:
            value = getattr(parameter, choice)
            found[name] = value.decode("latin-1") if isinstance(value, bytes) else value
    return found


def _as_bytes(given: dict[str, Any]) -> dict[str, Any]:
    """An output's parameters; over gRPC it comes as bytes whatever they say."""
    return given | {"binary_data": True}


def _packed(tensor: Any, most: Most) -> bytes:
    field, dtype = _CONTENTS.get(tensor.datatype, ("", ""))
    if not field:
        raise TensorError(
            f"input {tensor.name!r}: {tensor.datatype} comes in raw_input_contents alone; known "
            f"otherwise are {', '.join(_CONTENTS)}"
        )
    values = getattr(tensor.contents, field)
    num = len(values)
    if num > _FEW and num > (allowed := most(tensor.name)):
        raise TensorError(
            f"input {tensor.name[:80]!r} has {num} numbers, allowed are {allowed}; split the "
            "request"
        )
    try:  # NumPy checks their range
        return b"".join(
            np.array(values[start : start + _AT_ONCE], dtype).tobytes()
            for start in range(0, num, _AT_ONCE)
        )
    except (OverflowError, ValueError) as error:
        raise TensorError(
            f"input {tensor.name!r}: a value is out of {tensor.datatype}'s range ({error})"
        ) from None
