"""What every inference of the v2 protocol has, whatever it asks for: reading and answering it.

The outputs that are asked for, deadline and priority, tensors of a type; and the answer's body with
its headers. `serving.api.v2.tensors` reads and writes the tensors themselves.
"""

import functools
import gzip
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from serving.api.schemas import V2Inference, V2Tensor
from serving.api.v2 import tensors as v2_tensors
from serving.errors import InvalidRequestProblem, quoted
from serving.http.auth import Header
from serving.http.messages import Headers
from serving.requests.deadlines import Scheduling, read_scheduling
from serving.settings import Settings

_COMPRESSORS: dict[bytes, Callable[[bytes], bytes]] = {
    b"gzip": functools.partial(gzip.compress, compresslevel=1),
    b"deflate": functools.partial(zlib.compress, level=1),
}
_BINARY_COPIES, _JSON_COPIES = 3, 18
"""Of an output's bytes, while an answer is put together: a float32 takes up to 21 letters."""


@dataclass
class Answer:
    """The answer to one inference, and what its response headers need."""

    head: V2Inference
    """The response without its outputs."""
    outputs: list[tuple[str, bool]]
    """Name, and whether as bytes instead of JSON."""
    coding: bytes | None
    """Content-Encoding of the response."""
    json_bytes: int = 0

    @property
    def is_binary(self) -> bool:
        """Whether an output follows the JSON as bytes."""
        return any(binary for _, binary in self.outputs)

    @property
    def media_type(self) -> str:
        """JSON, unless an output follows it as bytes."""
        return "application/octet-stream" if self.is_binary else "application/json"

    def written(self, tensors: Sequence[Any]) -> bytes:
        """Writes the tensors of the outputs, and compresses the body where the client asked."""
        entries = [
            (name, tensor, binary)
            for (name, binary), tensor in zip(self.outputs, tensors, strict=True)
        ]
        body, self.json_bytes = v2_tensors.write(self.head, entries)
        return _COMPRESSORS[self.coding](body) if self.coding else body

    def headers(self) -> Headers:
        """Returns the response headers; only valid after `written`."""
        headers: Headers = ()
        if self.is_binary:
            length = str(self.json_bytes).encode("ascii")
            headers += ((b"inference-header-content-length", length),)
        if self.coding:
            headers += ((b"content-encoding", self.coding), (b"vary", b"accept-encoding"))
        return headers

    def num_bytes(self, known: Sequence[V2Tensor], num_rows: int) -> int:
        """About what writing the outputs takes in memory; known: all that could be asked for."""
        total = 0
        for name, binary in self.outputs:
            tensor = next(each for each in known if each.name == name)
            size = np.dtype(v2_tensors.DATATYPES[tensor.datatype]).itemsize
            row_bytes = size * math.prod(tensor.shape[1:])
            total += num_rows * row_bytes * (_BINARY_COPIES if binary else _JSON_COPIES)
        return total


def head_of(infer: v2_tensors.InferRequest, name: str, version: int) -> V2Inference:
    """The response without its outputs."""
    return V2Inference(
        model_name=name, model_version=str(version), id=infer.id or msgspec.UNSET, outputs=[]
    )


def outputs_of(
    infer: v2_tensors.InferRequest, known: Sequence[V2Tensor], default: Sequence[str]
) -> list[tuple[str, bool]]:
    """The outputs that are asked for: their names, and whether each comes as bytes.

    Args:
        infer: the request.
        known: the outputs that there are.
        default: names of those that it gets if it asks for none.

    Raises:
        InvalidRequestProblem: one is unknown, comes twice, or can't come as is asked.
    """
    for_all = infer.parameters.get("binary_data_output", False)
    asked = infer.outputs or [v2_tensors.RequestedOutput(name) for name in default]
    kinds = {tensor.name: tensor.datatype for tensor in known}
    outputs: dict[str, bool] = {}
    for output in asked:
        if output.name not in kinds:
            raise InvalidRequestProblem(
                f"output {quoted(output.name)} is not known; there are {', '.join(kinds)}"
            )
        if output.name in outputs:
            raise InvalidRequestProblem(f"output {output.name!r} is asked for twice")
        if "classification" in output.parameters:
            raise InvalidRequestProblem(f"output {output.name!r}: there is no classification of it")
        binary = output.parameters.get("binary_data", for_all)
        if not isinstance(binary, bool):
            raise InvalidRequestProblem(
                f"output {output.name!r}: binary_data is {quoted(binary)}, must be true or false"
            )
        if kinds[output.name] == "BYTES" and not binary:
            raise InvalidRequestProblem(
                f"output {output.name!r} is bytes, which JSON can't hold; ask for it with "
                "binary_data true"
            )
        outputs[output.name] = binary
    return list(outputs.items())


def coding_of(header: Header) -> bytes | None:
    """Only a coding that is asked for alone: many clients list some that they don't prefer."""
    asked = (header(b"accept-encoding") or b"").strip().lower()
    return asked if asked in _COMPRESSORS else None


def text_of(infer: v2_tensors.InferRequest, name: str, example: str) -> str | None:
    """Reads a parameter that is a string; None where it is absent.

    Raises:
        InvalidRequestProblem: it is something else.
    """
    text = infer.parameters.get(name)
    if text is not None and not isinstance(text, str):
        raise InvalidRequestProblem(
            f"parameter {name} is {quoted(text)}, must be a string such as {example!r}"
        )
    return text


def scheduling_of(infer: v2_tensors.InferRequest, header: Header, settings: Settings) -> Scheduling:
    """Reads deadline and priority; timeout is in microseconds, a priority above 1 means bulk.

    Raises:
        InvalidRequestProblem: one of them is out of range.
    """
    terms = read_scheduling(header, settings)
    most = settings.request_timeout_ms
    timeout = infer.parameters.get("timeout")
    if timeout is not None:
        if not _is_whole(timeout) or not 1 <= timeout <= most * 1000:
            raise InvalidRequestProblem(
                f"timeout is {quoted(timeout)} (microseconds), allowed are 1 .. {most * 1000}"
            )
        terms = Scheduling(max(1, timeout // 1000), terms.bulk)
    priority = infer.parameters.get("priority", 0)
    if not _is_whole(priority) or priority < 0:
        raise InvalidRequestProblem(
            f"priority is {quoted(priority)}, must be a whole number from 0 on"
        )
    return Scheduling(terms.timeout_ms, terms.bulk or priority > 1)


def limits_of(inputs: Sequence[V2Tensor], num_rows: int) -> v2_tensors.Limits:
    """What inputs may have, where there are at most so many rows.

    A label counts even where the model takes none: its refusal says so.
    """
    elements, num_lists = {"LABEL": num_rows}, num_rows
    for tensor in inputs:
        sides = [num_rows if side < 0 else side for side in tensor.shape]
        elements[tensor.name] = math.prod(sides)
        # [N] may come as [N, 1], and N lists of lists of lists are less than twice the innermost.
        num_lists += sides[0] if len(sides) == 1 else 2 * math.prod(sides[:-1])
    return v2_tensors.Limits(elements, num_lists)


def check_known(given: Sequence[str], known: Sequence[str]) -> None:
    """Raises InvalidRequestProblem for an input that isn't known."""
    for name in given:
        if name not in known:
            raise InvalidRequestProblem(
                f"input {quoted(name)} is not known; there are {', '.join(known)}"
            )


def typed(tensor: v2_tensors.Array, name: str, datatype: str) -> v2_tensors.Array:
    """Returns a tensor that has the type that it must have.

    Raises:
        InvalidRequestProblem: it has another one.
    """
    if tensor.dtype != v2_tensors.DATATYPES[datatype]:
        raise InvalidRequestProblem(
            f"input {name!r} has the wrong datatype ({tensor.dtype}), must be {datatype}"
        )
    return tensor


def vector(tensor: v2_tensors.Array, name: str, datatype: str) -> v2_tensors.Array:
    """Flattens [N] or [N, 1]: many clients keep a side for the batch.

    Raises:
        InvalidRequestProblem: it has another shape or type.
    """
    typed(tensor, name, datatype)
    if tensor.ndim != 1 and not (tensor.ndim == 2 and tensor.shape[1] == 1):
        raise InvalidRequestProblem(
            f"input {name!r} has shape {list(tensor.shape)}, must be [N] or [N, 1]"
        )
    return np.ravel(tensor)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
