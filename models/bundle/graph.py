"""Checks that a model.onnx refers to no other file and uses ONNX's standard operators only.

ONNX lets a graph name other files for its weights, and operators of libraries that a runtime has
loaded. A bundle's digests cover neither, and an untrusted graph would decide what is opened. So the
file is checked before any runtime sees it. The numbers of fields are those of onnx.proto
(github.com/onnx/onnx); a server has no `onnx` package.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

from models.errors import BundleError
from models.wire import fields

STANDARD_DOMAINS = ("", "ai.onnx")
_MAX_DEPTH = 32  # of graphs within graphs: deeper ones would only exhaust the stack

# Types of the fields to look into, by number; all others are skipped.
_FIELDS: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {},
}
_OP_TYPE, _DOMAIN = 4, 7  # of NodeProto
_GRAPH = 7  # of ModelProto
_INITIALIZER, _INPUT, _OUTPUT = 5, 11, 12  # of GraphProto
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of TensorProto; 0 is in the file itself


def check_graph(path: Path) -> frozenset[str]:
    """Refuses a graph that refers to anything outside its file; returns the operators that it has.

    Raises:
        BundleError: it names external data or a non-standard operator, or is not an ONNX model.
    """
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
            memoryview(data) as view,
        ):
            operators: set[str] = set()
            _check(view, "ModelProto", slice(0, len(view)), 0, operators)
            return frozenset(operators)
    except _ReachError as error:
        raise BundleError(f"{path}: {error}; export the model again") from error
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}; export the model again") from error
    except (ValueError, IndexError) as error:  # ValueError: an empty file, too
        raise BundleError(
            f"{path}: is not an ONNX model ({error}); export the model again"
        ) from error


def names_of(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of a graph's inputs and outputs, read without a runtime.

    Raises:
        BundleError: it is not an ONNX model, or can't be read.
    """
    found: dict[int, list[str]] = {_INPUT: [], _OUTPUT: []}
    constants: set[str] = set()  # in older graphs they are inputs, too
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
            memoryview(data) as view,
        ):
            for graph in _messages(view, slice(0, len(view)), _GRAPH):
                for number, names in found.items():
                    names += [_name(view, each, 1) for each in _messages(view, graph, number)]
                constants |= {_name(view, each, 8) for each in _messages(view, graph, _INITIALIZER)}
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}; export the model again") from error
    except (ValueError, IndexError) as error:
        raise BundleError(
            f"{path}: is not an ONNX model ({error}); export the model again"
        ) from error
    inputs = tuple(name for name in found[_INPUT] if name not in constants)
    return inputs, tuple(found[_OUTPUT])


def _messages(data: memoryview, where: slice, number: int) -> Iterator[slice]:
    """The fields of a message that have this number and are messages."""
    return (
        value
        for found, value in fields(data, where)
        if found == number and isinstance(value, slice)
    )


def _name(data: memoryview, where: slice, number: int) -> str:
    """The text of a message's field; empty where it has none."""
    return next((_text(data, each) for each in _messages(data, where, number)), "")


class _ReachError(Exception):
    """The graph refers to something outside; the message names it."""


def _check(data: memoryview, message: str, where: slice, depth: int, operators: set[str]) -> None:
    if depth > _MAX_DEPTH * 3:  # a graph in a graph is three messages deeper
        raise _ReachError(f"its graphs are nested more than {_MAX_DEPTH} deep")
    inner = _FIELDS[message]
    op_type = ""
    for number, value in fields(data, where):
        if message == "TensorProto":
            if number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value):
                raise _ReachError(
                    "its weights are in another file, which no digest covers: a bundle's model "
                    "holds them itself"
                )
        elif not isinstance(value, slice):
            continue
        elif number in inner:
            _check(data, inner[number], value, depth + 1, operators)
        elif message == "NodeProto" and number == _OP_TYPE:
            op_type = _text(data, value)
            operators.add(op_type)
        elif message == "NodeProto" and number == _DOMAIN:
            domain = _text(data, value)
            if domain not in STANDARD_DOMAINS:
                raise _ReachError(
                    f"operator {op_type or '?'} is of the domain {domain!r}; allowed are ONNX's "
                    "standard operators"
                )


def _text(data: memoryview, where: slice) -> str:
    return bytes(data[where][:100]).decode("utf-8", "replace")
