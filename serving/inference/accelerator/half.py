"""A graph whose layers compute in float16, with the inputs and outputs of the float32 graph.

Convolutions and matrix products run in float16, which is where the time goes. What moves or scales
their results follows them; anything else, known or not, stays in float32: squares, means, roots and
exponentials, whose values leave float16's range (6e-8 to 65504), and the last steps to bytes where
a tanh comes before them. So only edges between the two need a Cast, as in torch's autocast
(pytorch.org/docs/stable/amp.html, "op-specific behavior"). Weights get one too, which ONNX Runtime
computes when it opens the graph.

`onnxruntime.transformers.float16` does something like it, and needs the `onnx` package, which a
server doesn't have. The numbers of fields are those of onnx.proto (github.com/onnx/onnx).
"""

from dataclasses import dataclass, field
from pathlib import Path

from models.errors import BundleError
from models.wire import encoded, fields

_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_FOLLOW = frozenset(
    {
        *("Abs", "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "DepthToSpace"),
        *("Div", "Elu", "Expand", "Flatten", "Gather", "GatherND", "GlobalAveragePool", "Identity"),
        *("LeakyRelu", "Max", "MaxPool", "Min", "Mul", "Neg", "PRelu", "Pad", "Relu", "Reshape"),
        *("Resize", "Shape", "Sigmoid", "Size", "Slice", "Split", "Squeeze", "Sub", "Tile"),
        *("Transpose", "Unsqueeze", "Where"),
    }
)
# A product with squares is a sum of squares: of 512 channels it soon is beyond 65504.
_SQUARES = frozenset({"Pow", "ReduceMean", "ReduceSum", "ReduceSumSquare"})
_ALWAYS_FLOAT = {"Resize": {1, 2}}  # numbers of inputs: region and scales

_FLOAT, _FLOAT16 = 1, 10  # of TensorProto.DataType
_INT = 2  # of AttributeProto.AttributeType
_GRAPH = 7  # of ModelProto
_NODE, _INITIALIZER, _INPUT, _OUTPUT, _VALUE_INFO = 1, 5, 11, 12, 13  # of GraphProto
_NODE_INPUT, _NODE_OUTPUT, _OP_TYPE, _ATTRIBUTE = 1, 2, 4, 5  # of NodeProto


@dataclass
class _Node:
    """A node, and the rest of its message: all but its inputs and outputs."""

    op_type: str
    inputs: list[str]
    outputs: list[str]
    rest: bytes
    has_graphs: bool

    def to_bytes(self) -> bytes:
        """Its field of a GraphProto."""
        parts = [
            *(encoded(_NODE_INPUT, name.encode()) for name in self.inputs),
            *(encoded(_NODE_OUTPUT, name.encode()) for name in self.outputs),
            self.rest,
        ]
        return encoded(_NODE, b"".join(parts))


def half_graph(path: Path) -> bytes:
    """Converts a model.onnx; returns the content of a file that takes and gives the same types.

    path: verified, and looked at by `models.bundle.graph.check_graph`.

    Raises:
        BundleError: it can't be converted.
    """
    try:
        data = memoryview(path.read_bytes())
        parts = [
            _converted(data, value)
            if number == _GRAPH and isinstance(value, slice)
            else encoded(number, data[value] if isinstance(value, slice) else value)
            for number, value in fields(data, slice(0, len(data)))
        ]
    except _RefusedError as error:
        raise BundleError(
            f"{path}: --cuda-math is fp16, but {error}; use --cuda-math fp32 or tf32"
        ) from error
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}; publish the model again") from error
    except (ValueError, IndexError) as error:
        raise BundleError(
            f"{path}: is not an ONNX model ({error}); export the model again"
        ) from error
    return b"".join(parts)


class _RefusedError(Exception):
    """The graph can't be converted; the message says why."""


def _converted(data: memoryview, where: slice) -> bytes:
    """The field of a ModelProto with the converted graph; where: the GraphProto."""
    graph = _read(data, where)
    edges = _Edges({name for name, kind in graph.types.items() if kind == _FLOAT})
    makers: dict[str, str] = {}
    for node in graph.nodes:
        if node.has_graphs:
            raise _RefusedError(f"its operator {node.op_type} holds graphs of its own")
        for name in node.outputs:
            if name and name not in graph.types:
                raise _RefusedError(f"the type of its value {name!r} isn't written in the graph")
            makers[name] = node.op_type
        edges.add(node, is_half=_runs_half(node, edges, makers))
    if not edges.halves:
        raise _RefusedError("it has no layer that float16 makes faster")
    for name in graph.outputs:
        edges.as_float(name)
    return encoded(_GRAPH, b"".join([*edges.nodes, *graph.others]))


@dataclass
class _Graph:
    """A GraphProto."""

    nodes: list[_Node] = field(default_factory=list)
    types: dict[str, int] = field(default_factory=dict)
    """TensorProto.DataType by the value's name."""
    outputs: list[str] = field(default_factory=list)
    others: list[bytes] = field(default_factory=list)
    """All fields but nodes, and the types of values that may be gone."""


def _read(data: memoryview, where: slice) -> _Graph:
    graph = _Graph()
    for number, value in fields(data, where):
        if not isinstance(value, slice):
            raise ValueError(f"field {number} of its graph is a number")
        if number == _NODE:
            graph.nodes.append(_node(data, value))
            continue
        if number == _INITIALIZER:
            name, kind = _name_and_type(data, value, name_field=8, type_fields=(2,))
            graph.types[name] = kind
        elif number in (_INPUT, _OUTPUT, _VALUE_INFO):
            name, kind = _name_and_type(data, value, name_field=1, type_fields=(2, 1, 1))
            graph.types[name] = kind
            graph.outputs += [name] * (number == _OUTPUT)
        if number != _VALUE_INFO:
            graph.others.append(encoded(number, data[value]))
    return graph


class _Edges:
    """The new graph's nodes, and in which type each value is there.

    A float32 value has the name that it had; in float16 it has another one beside it.
    """

    def __init__(self, floats: set[str]) -> None:
        self.floats = floats
        """Names of the values that are float32 in the graph that is converted."""
        self.halves: set[str] = set()
        """Those of them that are made in float16."""
        self.nodes: list[bytes] = []
        self._cast: set[str] = set()

    def add(self, node: _Node, *, is_half: bool) -> None:
        """Adds a node, and the casts before it."""
        stays = _ALWAYS_FLOAT.get(node.op_type, ())
        node.inputs = [
            self._as_half(name) if is_half and index not in stays else self.as_float(name)
            for index, name in enumerate(node.inputs)
        ]
        if is_half:
            made = [name for name in node.outputs if name in self.floats]
            self.halves.update(made)
            node.outputs = [_half_name(n) if n in self.floats else n for n in node.outputs]
        self.nodes.append(node.to_bytes())

    def as_float(self, name: str) -> str:
        """The name of a value as an operator in float32 takes it."""
        if name in self.halves:
            self._add_cast(_half_name(name), name, _FLOAT)
        return name

    def _as_half(self, name: str) -> str:
        if name not in self.floats:
            return name
        if name not in self.halves:
            self._add_cast(name, _half_name(name), _FLOAT16)
        return _half_name(name)

    def _add_cast(self, source: str, target: str, kind: int) -> None:
        if target in self._cast:
            return
        self._cast.add(target)
        attribute = encoded(1, b"to") + encoded(3, kind) + encoded(20, _INT)
        rest = encoded(_OP_TYPE, b"Cast") + encoded(_ATTRIBUTE, attribute)
        self.nodes.append(_Node("Cast", [source], [target], rest, False).to_bytes())


def _runs_half(node: _Node, edges: _Edges, makers: dict[str, str]) -> bool:
    if node.op_type == "MatMul":
        return not any(makers.get(name) in _SQUARES for name in node.inputs)
    if node.op_type in _PRODUCTS:
        return True
    return node.op_type in _FOLLOW and any(name in edges.halves for name in node.inputs)


def _half_name(name: str) -> str:
    return f"{name}|float16"


def _node(data: memoryview, where: slice) -> _Node:
    node = _Node("", [], [], b"", False)
    rest = []
    for number, value in fields(data, where):
        if not isinstance(value, slice):
            raise ValueError(f"field {number} of a node is a number")
        if number == _NODE_INPUT:
            node.inputs.append(_text(data, value))
        elif number == _NODE_OUTPUT:
            node.outputs.append(_text(data, value))
        else:
            rest.append(encoded(number, data[value]))
        if number == _OP_TYPE:
            node.op_type = _text(data, value)
        elif number == _ATTRIBUTE:
            node.has_graphs |= any(n in (6, 11) for n, _ in fields(data, value))
    node.rest = b"".join(rest)
    return node


def _name_and_type(
    data: memoryview, where: slice, *, name_field: int, type_fields: tuple[int, ...]
) -> tuple[str, int]:
    """The name in a message, and the number at the end of a path of fields; 0 for none."""
    name = ""
    for number, value in fields(data, where):
        if number == name_field and isinstance(value, slice):
            name = _text(data, value)
    found: int | slice = where
    for wanted in type_fields:
        if not isinstance(found, slice):
            return name, 0
        found = next((value for number, value in fields(data, found) if number == wanted), 0)
    return name, found if isinstance(found, int) else 0


def _text(data: memoryview, where: slice) -> str:
    return bytes(data[where]).decode("utf-8")
