"""Graphs by hand that take images: encoders of tiny generators, and a score. No torch.

An encoder here is linear: z = (x * mask - 127.5) P + (0.05 + share of unknown pixels) * start, with
P the pseudo-inverse of the generator's weights.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.bundle import ENCODER
from models.bundle.anomaly import CALIBRATION, SCORE, Calibration
from models.bundle.manifest import ImageSpec

FULL, OLD, TOLD = "full", "old", "told"
"""With mask, start and classes found or told; as of the first VAE-GANs; as those, and told."""
FRAGILE = "fragile"
"""As FULL; fails with an image whose first pixel is 13."""


def parts_of(
    kind: str,
    weight: npt.NDArray[np.float32],
    table: npt.NDArray[np.float32] | None,
    image: ImageSpec,
) -> dict[str, bytes]:
    """The files of a bundle beside its generator, whose weights these are."""
    files = {ENCODER: encoder(kind, weight, table, image).SerializeToString()}
    if kind in (FULL, FRAGILE):
        files[SCORE] = score(image).SerializeToString()
        scores = np.linspace(0, 0.5, 99)
        files[CALIBRATION] = Calibration(scores).to_bytes()
    return files


def encoder(
    kind: str,
    weight: npt.NDArray[np.float32],
    table: npt.NDArray[np.float32] | None,
    image: ImageSpec,
) -> onnx.ModelProto:
    """An encoder of the generator clip(127.5 + z weight + table[label])."""
    z_dim, num_pixels = weight.shape
    shape = [image.height, image.width, image.channels]
    constants: dict[str, Any] = {
        "inverse": np.linalg.pinv(weight.astype(np.float64)).astype(np.float32),
        "middle": np.float32(127.5),
        "flat": np.array([-1, num_pixels], np.int64),
    }
    inputs = [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", *shape])]
    outputs = [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", z_dim])]
    nodes = [
        _node("Cast", "image", "pixels", to=TensorProto.FLOAT),
        _node("Sub", "pixels middle", "centred"),
    ]
    varies = kind in (FULL, FRAGILE)
    if varies:
        constants |= {"last": np.array([3], np.int64), "all": np.array([1, 2], np.int64)}
        constants |= {"one": np.float32(1.05), "sides": np.array([-1, 1], np.int64)}
        inputs += [
            helper.make_tensor_value_info("mask", TensorProto.UINT8, ["n", *shape[:2]]),
            helper.make_tensor_value_info("start", TensorProto.FLOAT, ["n", z_dim]),
        ]
        nodes += [
            _node("Cast", "mask", "known", to=TensorProto.FLOAT),
            _node("Unsqueeze", "known last", "shaped"),
            _node("Mul", "centred shaped", "seen"),
            _node("ReduceMean", "known all", "share", keepdims=0),
            _node("Sub", "one share", "unknown"),
            _node("Reshape", "unknown sides", "column"),
            _node("Mul", "start column", "drawn"),
        ]
    nodes.append(_node("Reshape", f"{'seen' if varies else 'centred'} flat", "row"))
    row = "row"
    if table is not None and kind != OLD:
        constants["table"] = table
        if varies:
            constants |= {
                "towards": np.ascontiguousarray(table.T),
                "half": (0.5 * np.square(table).sum(1)).astype(np.float32),
            }
            constants["none"] = np.int64(0)
            inputs.append(helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]))
            outputs.append(
                helper.make_tensor_value_info("label_scores", TensorProto.FLOAT, ["n", len(table)])
            )
            nodes += [
                _node("MatMul", "row towards", "likeness"),
                _node("Sub", "likeness half", "label_scores"),
                _node("ArgMax", "label_scores", "likeliest", axis=1, keepdims=0),
                _node("Less", "label none", "is_open"),
                _node("Where", "is_open likeliest label", "class"),
            ]
        else:
            inputs.append(helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]))
        used = "class" if varies else "label"
        nodes += [
            _node("Gather", f"table {used}", "of_class"),
            _node("Sub", "row of_class", "rest"),
        ]
        row = "rest"
    nodes.append(_node("MatMul", f"{row} inverse", "found" if varies else "z"))
    if varies:
        nodes.append(_node("Add", "found drawn", "near" if kind == FRAGILE else "z"))
    if kind == FRAGILE:
        # Looks up entry 1 of a list of one where the first pixel is 13, else entry 0.
        constants |= {
            "thirteen": np.uint8(13),
            "zero": np.zeros(1, np.float32),
            "corner": np.array([0, 0], np.int64),
            "first": np.array([0], np.int64),
            "next": np.array([1], np.int64),
            "columns": np.array([1], np.int64),
        }
        nodes += [
            _node("Reshape", "image flat", "bytes"),
            _node("Slice", "bytes first next columns", "pixel"),
            _node("Equal", "pixel thirteen", "is_bad"),
            _node("Cast", "is_bad", "index", to=TensorProto.INT64),
            _node("Gather", "zero index", "nothing"),
            _node("Add", "near nothing", "z"),
        ]
    return _model(nodes, inputs, outputs, constants)


def score(image: ImageSpec) -> onnx.ModelProto:
    """The mean squared difference, in [-1, 1], plus 1/4 of it as if it were of features."""
    shape = ["n", image.height, image.width, image.channels]
    constants: dict[str, Any] = {
        "scale": np.float32(127.5),
        "channels": np.array([3], np.int64),
        "all": np.array([1, 2], np.int64),
        "more": np.float32(1.25),
    }
    nodes = [
        _node("Cast", "image", "x", to=TensorProto.FLOAT),
        _node("Cast", "reconstruction", "y", to=TensorProto.FLOAT),
        _node("Sub", "x y", "difference"),
        _node("Div", "difference scale", "scaled"),
        _node("Mul", "scaled scaled", "square"),
        _node("ReduceMean", "square channels", "residual", keepdims=0),
        _node("ReduceMean", "residual all", "mean", keepdims=0),
        _node("Mul", "mean more", "score"),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.UINT8, shape)
        for name in ("image", "reconstruction")
    ]
    outputs = [
        helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n"]),
        helper.make_tensor_value_info("residual", TensorProto.FLOAT, shape[:3]),
    ]
    return _model(nodes, inputs, outputs, constants)


def _node(kind: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def _model(
    nodes: list[onnx.NodeProto], inputs: list[Any], outputs: list[Any], constants: dict[str, Any]
) -> onnx.ModelProto:
    initializers = [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()]
    graph = helper.make_graph(nodes, "planted", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
