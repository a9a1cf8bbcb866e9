"""Bundles with one fault each: valid where one looks, and failing where one doesn't."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.bundle import Bundle, write_bundle
from models.bundle.generator import CpuGenerator
from models.latents import latents

Change = Callable[[onnx.ModelProto], None]


def changed(bundle: Bundle, folder: Path, change: Change, *, golden: bool = True) -> Bundle:
    """A bundle with another graph; golden: its golden images are those that the new graph makes."""
    model = onnx.load(bundle.model_path)
    change(model)
    folder.mkdir(parents=True)
    path = folder / "changed.onnx"
    onnx.save(model, path)
    expected = bundle.golden
    if golden:
        z = latents(expected.seeds, bundle.manifest.z_dim)
        images = CpuGenerator(path)(z, expected.labels)
        expected = type(expected)(seeds=expected.seeds, labels=expected.labels, images=images)
    files = {name: (bundle.path / name).read_bytes() for name in bundle.manifest.files}
    files |= {"model.onnx": path.read_bytes(), "golden.npz": expected.to_bytes()}
    manifest = msgspec.structs.replace(bundle.manifest, files={})
    return write_bundle(folder / "bundle", manifest, files)


def only_at(num_rows: int) -> Change:
    """The graph gives images of one batch size only, as an exporter with a fixed shape makes it."""

    def change(model: onnx.ModelProto) -> None:
        shape = _initializer(model, "shape")
        value = numpy_helper.to_array(shape).copy()
        value[0] = num_rows
        shape.CopyFrom(numpy_helper.from_array(value, "shape"))

    return change


def not_at(num_rows: int) -> Change:
    """The graph fails at one batch size, or gives one image instead of seven."""

    def change(model: onnx.ModelProto) -> None:
        table = np.ones(1025, np.int64)
        table[num_rows] = 7
        _add(
            model,
            {"rows_table": table, "first": np.array([0], np.int64), "ones": np.ones(3, np.int64)},
            helper.make_node("Shape", ["z"], ["z_shape"]),
            helper.make_node("Gather", ["z_shape", "first"], ["num_rows"]),
            helper.make_node("Gather", ["rows_table", "num_rows"], ["factor"]),
            helper.make_node("Concat", ["ones", "factor"], ["factors"], axis=0),
            helper.make_node("Mul", ["shape", "factors"], ["target"]),
        )
        _last(model).input[1] = "target"

    return change


def mixes_rows(model: onnx.ModelProto) -> None:
    """Each image depends on the rows beside it."""
    _add(
        model,
        {},
        helper.make_node("ReduceMean", ["linear"], ["mean"], axes=[0], keepdims=1)
        if _opset(model) < 18
        else helper.make_node("ReduceMean", ["linear", "axis"], ["mean"], keepdims=1),
        helper.make_node("Add", ["linear", "mean"], ["mixed"]),
        constants={"axis": np.array([0], np.int64)},
    )
    for node in model.graph.node:
        if node.op_type == "Add" and node.output[0] == "shifted":
            node.input[0] = "mixed"


def lasts(model: onnx.ModelProto) -> None:
    """A run lasts as long as its first latent says: 1000 turns of a loop for each unit above 50."""
    weight = (np.eye(64) * 0.999).astype(np.float32)
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("MatMul", ["state", "loop_weight"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [64, 64]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [64, 64]),
        ],
        [numpy_helper.from_array(weight, "loop_weight")],
    )
    constants = {
        "fifty": np.float32(50),
        "thousand": np.float32(1000),
        "zero": np.float32(0),
        "go": np.array(True),
        "state": np.zeros((64, 64), np.float32),
        "first_value": np.array(0, np.int64),
        "flat": np.array([-1], np.int64),
    }
    _add(
        model,
        constants,
        helper.make_node("Reshape", ["z", "flat"], ["z_flat"]),
        helper.make_node("Gather", ["z_flat", "first_value"], ["z_first"]),
        helper.make_node("Sub", ["z_first", "fifty"], ["above"]),
        helper.make_node("Relu", ["above"], ["positive"]),
        helper.make_node("Mul", ["positive", "thousand"], ["wanted"]),
        helper.make_node("Cast", ["wanted"], ["turns"], to=TensorProto.INT64),
        helper.make_node("Loop", ["turns", "go", "state"], ["ended"], body=body),
        helper.make_node("ReduceSum", ["ended"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
        helper.make_node("Add", ["linear", "nothing"], ["waited"]),
    )
    for node in model.graph.node:
        if node.op_type == "Add" and node.output[0] == "shifted":
            node.input[0] = "waited"


def _add(
    model: onnx.ModelProto,
    values: dict[str, np.ndarray],
    *nodes: onnx.NodeProto,
    constants: dict[str, np.ndarray] | None = None,
) -> None:
    """Nodes before those that make the image: after the linear part, which they may use."""
    for name, value in {**values, **(constants or {})}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    at = next(i for i, node in enumerate(model.graph.node) if node.output[0] == "linear") + 1
    later = list(model.graph.node[at:])
    del model.graph.node[at:]
    model.graph.node.extend([*nodes, *later])


def _initializer(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(entry for entry in model.graph.initializer if entry.name == name)


def _last(model: onnx.ModelProto) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.output[0] == "image")


def _opset(model: onnx.ModelProto) -> int:
    return int(model.opset_import[0].version)
