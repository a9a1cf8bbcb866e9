"""A float16 graph as a GPU computes it, for the CPU: every result is rounded to float16.

ONNX Runtime's CPU provider computes float16 nodes in float32, and leaves out the rounding between
two of them. Here the nodes are float32's, and two casts round what each makes. Within a node a GPU
adds up in float32 too.
"""

import onnx
from onnx import TensorProto, helper


def rounded(data: bytes) -> bytes:
    """Takes and gives the content of a model file; float16 values end in "|float16"."""
    model = onnx.load_from_string(data)
    nodes = []

    def add_rounding(raw: str, name: str) -> None:
        nodes.append(helper.make_node("Cast", [raw], [f"{name}|bits"], to=TensorProto.FLOAT16))
        nodes.append(helper.make_node("Cast", [f"{name}|bits"], [name], to=TensorProto.FLOAT))

    for node in model.graph.node:
        halves = [name for name in node.output if name.endswith("|float16")]
        if node.op_type == "Cast" and halves:
            add_rounding(node.input[0], halves[0])
            continue
        for index, name in enumerate(node.output):
            if name in halves:
                node.output[index] = f"{name}|raw"
        nodes.append(node)
        for name in halves:
            add_rounding(f"{name}|raw", name)
    copied = [helper.make_node("Identity", [], []) for _ in nodes]
    for copy, node in zip(copied, nodes, strict=True):
        copy.CopyFrom(node)
    del model.graph.node[:]
    model.graph.node.extend(copied)
    return bytes(model.SerializeToString())
