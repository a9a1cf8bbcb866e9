"""Optional parts of the tiny bundles by hand: units and styles, without torch."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from models.bundle.styles import MAPPING, STYLES, SYNTHESIS, StyleInfo
from models.bundle.units import GRAPH, UNITS, UnitInfo, without_units
from models.latents import latents

NUM_UNITS = NUM_STYLES = 4
FLOAT = TensorProto.FLOAT


def parts_of_pixels(num_pixels: int) -> npt.NDArray[np.float32]:
    """[4, num_pixels]: which quarter of the pixels each unit, or style, makes."""
    which = np.arange(num_pixels) * NUM_UNITS // num_pixels
    return (which[None] == np.arange(NUM_UNITS)[:, None]).astype(np.float32)


def _session(model: onnx.ModelProto) -> Any:
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def tiny_units(model: bytes, z_dim: int, num_classes: int) -> dict[str, bytes]:
    """units.onnx and units.npz: a unit makes a quarter of the pixels of the linear generator."""
    graph = onnx.load_from_string(model)
    weight = next(i for i in graph.graph.initializer if i.name == "weight")
    parts = parts_of_pixels(weight.dims[1])
    graph.graph.initializer.append(numpy_helper.from_array(parts, "parts"))
    graph.graph.input.append(helper.make_tensor_value_info("mask", FLOAT, ["n", NUM_UNITS]))
    linear = graph.graph.node[0]
    linear.output[0] = "unmasked"
    graph.graph.node.insert(1, helper.make_node("MatMul", ["mask", "parts"], ["kept"]))
    graph.graph.node.insert(2, helper.make_node("Mul", ["unmasked", "kept"], ["linear"]))
    session = _session(graph)
    seeds = np.arange(2, dtype=np.uint64)
    labels = (seeds % np.uint64(num_classes)).astype(np.int64) if num_classes else None
    masks = np.ones((2, NUM_UNITS), np.float32)
    masks[0, 1] = masks[1, 2] = 0
    names = [each.name for each in session.get_inputs()]
    images = without_units(session, names, latents(seeds, z_dim), labels, None, masks)
    info = UnitInfo(
        layers=np.array(["4x4", "8x8"]),
        channels=np.array([1, 3]),
        concepts=np.array(["ink", "slant"]),
        agreement=np.array([[0.5, 0], [0.25, 0.125], [0, 0], [0, 0.75]], np.float32),
        effect_concepts=np.array(["ink"]),
        effect_units=np.array([[0, 1]]),
        effects=np.array([[1.5, -0.5, 3.5, 0.25]], np.float32),
        seeds=seeds,
        labels=labels,
        masks=masks,
        images=images,
        artifact_units=np.array([3]),
        artifact_gains=np.array([[2.5, 1.5, 3.5]], np.float32),
    )
    return {GRAPH: graph.SerializeToString(), UNITS: info.to_bytes()}


def tiny_styles(model: bytes, z_dim: int) -> dict[str, bytes]:
    """The graph in two parts: w is z, and each style makes a quarter of the pixels."""
    whole = onnx.load_from_string(model)
    weight = next(i for i in whole.graph.initializer if i.name == "weight")
    parts = parts_of_pixels(weight.dims[1])
    z = helper.make_tensor_value_info("z", FLOAT, ["n", z_dim])
    w, mean = (helper.make_tensor_value_info(n, FLOAT, ["n", z_dim]) for n in ("w", "w_mean"))
    nodes = [
        helper.make_node("Identity", ["z"], ["w"]),
        helper.make_node("Sub", ["z", "z"], ["w_mean"]),
    ]
    mapping = _model(helper.make_graph(nodes, "mapping", [z], [w, mean]))
    synthesis = onnx.load_from_string(model)
    del synthesis.graph.input[:], synthesis.graph.node[0]
    synthesis.graph.input.append(
        helper.make_tensor_value_info("w", FLOAT, ["n", NUM_STYLES, z_dim])
    )
    synthesis.graph.initializer.append(numpy_helper.from_array(parts, "parts"))
    synthesis.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "axis"))
    made = [
        helper.make_node("MatMul", ["w", "weight"], ["each"]),
        helper.make_node("Mul", ["each", "parts"], ["own"]),
        helper.make_node("ReduceSum", ["own", "axis"], ["linear"], keepdims=0),
    ]
    for node in reversed(made):
        synthesis.graph.node.insert(0, node)
    seeds, others = np.arange(2, dtype=np.uint64), np.array([5, 6], np.uint64)
    take = np.tile(np.array([0, 1, 0, 1], np.float32), (2, 1))
    psi = np.ones((2, NUM_STYLES), np.float32)
    ws = np.where(
        take[:, :, None] > 0, latents(others, z_dim)[:, None], latents(seeds, z_dim)[:, None]
    )
    (images,) = _session(synthesis).run(["image"], {"w": ws.astype(np.float32)})
    info = StyleInfo(
        num_styles=NUM_STYLES,
        w_dim=z_dim,
        seeds=seeds,
        labels=None,
        others=others,
        take=take,
        psi=psi,
        images=images,
    )
    return {
        MAPPING: mapping.SerializeToString(),
        SYNTHESIS: synthesis.SerializeToString(),
        STYLES: info.to_bytes(),
    }


def _model(graph: onnx.GraphProto) -> onnx.ModelProto:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
