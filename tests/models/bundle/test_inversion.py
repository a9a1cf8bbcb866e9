"""An encoder's inputs and outputs, its golden values, and what is refused."""

import io

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from models.bundle import ENCODER
from models.bundle.inversion import (
    ENCODER_GOLDEN,
    EncoderGolden,
    encode,
    encoder_traits,
    golden_labels,
    read_encoder_golden,
)
from models.bundle.runtime import inputs_of, open_session, outputs_of
from models.bundle.verification import verify
from models.errors import BundleError

PIXELS, Z_DIM, LABELS = 64, 6, 3


def encoder(*inputs: str, scores: bool = False, scale: float = 0.01) -> bytes:
    """z = mean of the known pixels + start + label, by hand; [N, 8, 8, 1]."""
    info = helper.make_tensor_value_info
    shapes = {"image": ["n", 8, 8, 1], "mask": ["n", 8, 8], "label": ["n"], "start": ["n", Z_DIM]}
    types = {"label": TensorProto.INT64, "start": TensorProto.FLOAT}
    constants = {
        "flat": np.array([-1, PIXELS], np.int64),
        "weight": np.full((PIXELS, Z_DIM), scale, np.float32),
        "to_scores": np.arange(Z_DIM * LABELS, dtype=np.float32).reshape(Z_DIM, LABELS),
        "table": np.arange(LABELS * Z_DIM, dtype=np.float32).reshape(LABELS, Z_DIM),
    }
    nodes, last = [], "known"
    for name in ("image", "mask"):
        nodes.append(helper.make_node("Cast", [name], [f"{name}_f"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Reshape", [f"{name}_f", "flat"], [f"{name}_2"]))
    if "mask" not in inputs:
        nodes = nodes[:2]
    second = "mask_2" if "mask" in inputs else "image_2"
    op = "Mul" if "mask" in inputs else "Max"
    nodes.append(helper.make_node(op, ["image_2", second], ["known"]))
    nodes.append(helper.make_node("MatMul", [last, "weight"], ["linear"]))
    last = "linear"
    if "start" in inputs:
        nodes.append(helper.make_node("Add", [last, "start"], ["started"]))
        last = "started"
    if "label" in inputs:
        nodes.append(helper.make_node("Gather", ["table", "label"], ["embedded"]))
        nodes.append(helper.make_node("Add", [last, "embedded"], ["classed"]))
        last = "classed"
    nodes.append(helper.make_node("Identity", [last], ["z"]))
    outputs = [info("z", TensorProto.FLOAT, ["n", Z_DIM])]
    if scores:
        nodes.append(helper.make_node("MatMul", ["z", "to_scores"], ["label_scores"]))
        outputs.append(info("label_scores", TensorProto.FLOAT, ["n", LABELS]))
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "encoder",
        [info(name, types.get(name, TensorProto.UINT8), shapes[name]) for name in inputs],
        outputs,
        [numpy_helper.from_array(v, name) for name, v in constants.items() if name in used],
    )
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def with_golden(copy, data, *, num=2, change=None):
    """Writes an encoder and the values that it gives now, after a change."""
    copy.write(ENCODER, data)
    bundle = copy.open()
    session = open_session(bundle.path / ENCODER)
    traits = encoder_traits(bundle.path, bundle.manifest, inputs_of(session), outputs_of(session))
    images, rng = bundle.golden.images[:num], np.random.default_rng(3)
    masks = rng.integers(0, 2, images.shape[:3], dtype=np.uint8) if traits.fills else None
    starts = rng.normal(size=(num, Z_DIM)).astype(np.float32) if traits.varies else None
    label = None if bundle.golden.labels is None else bundle.golden.labels[:num]
    label = golden_labels(traits, label)
    found = encode(session, traits, images, z_dim=Z_DIM, label=label, mask=masks, start=starts)
    golden = EncoderGolden(z=found.z, masks=masks, starts=starts, label_scores=found.label_scores)
    arrays = dict(np.load(io.BytesIO(golden.to_bytes()))) | (change or {})
    buffer = io.BytesIO()
    np.savez(buffer, **{name: array for name, array in arrays.items() if array is not None})
    copy.write(ENCODER_GOLDEN, buffer.getvalue())
    return copy.open(), session, traits


@pytest.mark.parametrize(
    ("inputs", "conditional", "scores"),
    [
        (("image",), False, False),
        (("image", "mask", "start"), False, False),
        (("image", "label", "mask", "start"), True, False),
        (("image", "mask", "start"), True, True),
        (("image", "label", "mask", "start"), True, True),
    ],
)
def test_golden_values_hold(spoil, inputs, conditional, scores):
    bundle, session, traits = with_golden(
        spoil(conditional=conditional), encoder(*inputs, scores=scores)
    )
    assert verify(bundle) == 0
    assert (traits.fills, traits.infers_label) == ("mask" in inputs, scores)
    golden = read_encoder_golden(bundle)
    assert golden is not None
    assert len(golden.z) == 2
    label = np.zeros(1, np.int64)
    images = bundle.golden.images[:1]
    found = encode(session, traits, images, z_dim=Z_DIM, label=label)
    known = images.astype(np.float32).sum() * 0.01
    assert found.z[0, 0] == pytest.approx(known, rel=1e-4)  # no mask: every pixel; no start: zeros
    if scores:
        assert found.labels.tolist() == [2]
    else:
        assert found.labels is None


def test_what_a_mask_hides_is_not_read(spoil):
    bundle, session, traits = with_golden(spoil(), encoder("image", "mask"))
    mask = np.zeros((1, 8, 8), np.uint8)
    found = encode(session, traits, bundle.golden.images[:1], z_dim=Z_DIM, mask=mask)
    assert (found.z == 0).all()


CHANGES = {
    "other latents": ({"z": np.full((2, Z_DIM), 7, np.float32)}, "z of the golden images differs"),
    "no number": ({"z": np.full((2, Z_DIM), np.nan, np.float32)}, "z doesn't fit the model"),
    "another width": ({"z": np.zeros((2, 5), np.float32)}, "z doesn't fit the model"),
    "no values": ({"z": None}, "lacks 'z'"),
    "more than images": (
        {
            "z": np.zeros((99, Z_DIM), np.float32),
            "masks": np.ones((99, 8, 8), np.uint8),
            "starts": np.zeros((99, Z_DIM), np.float32),
        },
        "holds more values than golden.npz has images",
    ),
    "no masks": ({"masks": None}, "are not those of encoder_golden.npz"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_golden_values_that_are_refused(spoil, change):
    values, message = CHANGES[change]
    bundle, *_ = with_golden(spoil(), encoder("image", "mask", "start"), change=values)
    with pytest.raises(BundleError, match=rf"(?s)encoder.*{message}"):
        verify(bundle)


def test_golden_values_without_an_encoder(spoil):
    copy = spoil()
    golden = EncoderGolden(
        z=np.zeros((1, Z_DIM), np.float32), masks=None, starts=None, label_scores=None
    )
    copy.write(ENCODER_GOLDEN, golden.to_bytes())
    with pytest.raises(BundleError, match=r"encoder_golden\.npz: is there, but not encoder\.onnx"):
        verify(copy.open())


@pytest.mark.parametrize(
    ("inputs", "conditional", "message"),
    [
        (("image",), False, "gives label_scores and is of a model without classes"),
    ],
)
def test_classes_that_nobody_looks_for(spoil, inputs, conditional, message):
    copy = spoil(conditional=conditional)
    copy.write(ENCODER, encoder(*inputs, scores=True))
    with pytest.raises(BundleError, match=message):
        verify(copy.open())
