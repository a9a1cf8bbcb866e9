"""Graphs that a stranger made: whatever reaches beyond its file is refused before it is run."""

import contextlib
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from models.bundle.generator import CpuGenerator
from models.bundle.graph import check_graph
from models.errors import BundleError

OPSETS = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]


def tensor(values: list[float], name: str = "bias") -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.float32), name)


def moved(name: str, where: str) -> TensorProto:
    """A weight that lies in another file."""
    made = tensor([1.0], name)
    made.ClearField("raw_data")
    made.data_location = TensorProto.EXTERNAL
    made.external_data.add(key="location", value=where)
    return made


def model(*nodes, initializers=(), functions=()) -> onnx.ModelProto:
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        list(nodes),
        "strange",
        [info("z", TensorProto.FLOAT, ["n"])],
        [info("image", TensorProto.FLOAT, ["n"])],
        list(initializers),
    )
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=9, functions=functions)


def add(bias: str = "bias", **attributes) -> onnx.NodeProto:
    return helper.make_node("Add", ["z", bias], ["image"], **attributes)


def branch(*nodes, initializers=()) -> onnx.GraphProto:
    info = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])
    return helper.make_graph(list(nodes), "branch", [], [info], list(initializers))


def constant(value: TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["y"], value=value)


def choice(*nodes, initializers=()) -> onnx.NodeProto:
    inner = branch(*nodes, initializers=initializers)
    return helper.make_node("If", ["flag"], ["image"], then_branch=inner, else_branch=branch())


FUNCTION = helper.make_function("own", "F", [], ["y"], [constant(moved("v", "x"))], OPSETS)
SPARSE = helper.make_sparse_tensor(
    moved("values", "x"), numpy_helper.from_array(np.array([0], np.int64), "at"), [4]
)
sparse_model = model(add())
sparse_model.graph.sparse_initializer.append(SPARSE)
trained = model(add(), initializers=[tensor([1.0])])
trained.training_info.add().algorithm.initializer.append(moved("w", "x"))

REACHING = {
    "an initializer": model(add(), initializers=[moved("bias", "secret.bin")]),
    "one of an absolute path": model(add(), initializers=[moved("bias", "/etc/passwd")]),
    "one of a path upwards": model(add(), initializers=[moved("bias", "../../secret")]),
    "a constant": model(constant(moved("v", "x")), add("y")),
    "a branch's initializer": model(choice(initializers=[moved("y", "x")])),
    "a branch in a branch": model(choice(choice(constant(moved("v", "x"))))),
    "a list of tensors": model(add(extra=[moved("v", "x")])),
    "a list of graphs": model(add(extra=[branch(constant(moved("v", "x")))])),
    "a sparse attribute": model(add(extra=SPARSE)),
    "a function": model(add(), initializers=[tensor([1.0])], functions=[FUNCTION]),
    "a sparse initializer": sparse_model,
    "training information": trained,
}


@pytest.mark.parametrize("where", REACHING)
def test_weights_in_another_file_are_refused_wherever_they_are_named(tmp_path, where):
    path = tmp_path / "model.onnx"
    path.write_bytes(REACHING[where].SerializeToString())
    with pytest.raises(BundleError, match=r"weights are in another file.*export the model again"):
        check_graph(path)


def test_what_would_be_read_without_the_check(tmp_path: Path):
    """ONNX Runtime opens a neighbour of the file, so that the check is not for show."""
    path = tmp_path / "model.onnx"
    np.array([42.0], np.float32).tofile(tmp_path / "secret.bin")
    path.write_bytes(REACHING["an initializer"].SerializeToString())
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.run(None, {"z": np.zeros(1, np.float32)})[0].tolist() == [42.0]
    with pytest.raises(BundleError, match="weights are in another file"):
        CpuGenerator(path)


@pytest.mark.parametrize("domain", ["com.microsoft", "strange.ops", "ai.onnx.ml"])
def test_operators_that_are_not_the_standards_are_refused(tmp_path, domain):
    path = tmp_path / "model.onnx"
    for node in (
        helper.make_node("Gelu", ["z"], ["image"], domain=domain),
        choice(helper.make_node("Gelu", ["z"], ["y"], domain=domain)),
    ):
        path.write_bytes(model(node).SerializeToString())
        with pytest.raises(BundleError, match=f"operator Gelu is of the domain '{domain}'"):
            check_graph(path)


def test_a_tag_that_is_longer_than_it_need_be_hides_nothing(tmp_path):
    """Other readers drop the bits above 32: 0x6A is the tag of TensorProto.external_data."""
    path = tmp_path / "model.onnx"
    hidden = b"\xea\x80\x80\x80\x10" + b"\x02\x0a\x00"
    bias = tensor([1.0]).SerializeToString() + hidden
    graph = b"\x2a" + bytes([len(bias)]) + bias
    path.write_bytes(b"\x3a" + bytes([len(graph)]) + graph)
    with pytest.raises(BundleError, match="not valid Protocol Buffers"):
        check_graph(path)


def test_graphs_in_graphs_end_somewhere(tmp_path):
    path = tmp_path / "model.onnx"
    node = constant(tensor([1.0], "v"))
    for _ in range(30):  # the most that Protocol Buffers' own reader takes
        node = choice(node)
    path.write_bytes(model(node).SerializeToString())
    check_graph(path)
    data = b""
    for _ in range(400):
        attribute = b"\x32" + varint(len(data)) + data  # AttributeProto.g
        inner = b"\x2a" + varint(len(attribute)) + attribute  # NodeProto.attribute
        data = b"\x0a" + varint(len(inner)) + inner  # GraphProto.node
    path.write_bytes(b"\x3a" + varint(len(data)) + data)
    with pytest.raises(BundleError, match="nested more than 32 deep"):
        check_graph(path)


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def test_whole_models_pass_and_their_operators_are_told(grey, classes):
    plain = {"MatMul", "Add", "Clip", "Round", "Cast", "Reshape"}
    assert check_graph(grey.model_path) == plain
    assert check_graph(classes.model_path) == plain | {"Gather"}


@given(st.data())
def test_damaged_bytes_are_refused_in_words_or_pass(data):
    whole = REACHING["a function"].SerializeToString()
    position = data.draw(st.integers(0, len(whole) - 1))
    spoiled = whole[:position] + data.draw(st.binary(max_size=8)) + whole[position + 3 :]
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        file.write(spoiled)
        file.flush()
        with contextlib.suppress(BundleError):
            check_graph(Path(file.name))
