"""score.onnx is a distance, and p is conformal."""

import io

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from models.bundle import ENCODER
from models.bundle.anomaly import CALIBRATION, SCORE, Calibration, read_calibration
from models.bundle.verification import verify
from models.errors import BundleError
from tests.models.bundle.test_inversion import encoder


def score(*, offset: float = 0.0, sign: float = 1.0, first: str = "image") -> bytes:
    """Mean squared difference of [N, 8, 8, 1], by hand."""
    info, node = helper.make_tensor_value_info, helper.make_node
    names = (first, "reconstruction")
    nodes = [node("Cast", [name], [f"{name}_f"], to=TensorProto.FLOAT) for name in names]
    nodes += [
        node("Sub", [f"{name}_f" for name in names], ["change"]),
        node("Mul", ["change", "change"], ["square"]),
        node("ReduceMean", ["square", "channels"], ["plain"], keepdims=0),
        node("Mul", ["plain", "sign"], ["residual"]),
        node("ReduceMean", ["residual", "pixels"], ["mean"], keepdims=0),
        node("Add", ["mean", "offset"], ["score"]),
    ]
    constants = {
        "channels": np.array([3], np.int64),
        "pixels": np.array([1, 2], np.int64),
        "offset": np.float32(offset),
        "sign": np.float32(sign),
    }
    graph = helper.make_graph(
        nodes,
        "score",
        [info(name, TensorProto.UINT8, ["n", 8, 8, 1]) for name in names],
        [
            info("score", TensorProto.FLOAT, ["n"]),
            info("residual", TensorProto.FLOAT, ["n", 8, 8]),
        ],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def archive(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def test_a_bundle_with_a_scale(spoil):
    copy = spoil()
    copy.write(ENCODER, encoder("image"))
    copy.write(SCORE, score())
    calibration = Calibration(np.array([0.1, 0.2, 0.2, 0.4]))
    copy.write(CALIBRATION, calibration.to_bytes())
    bundle = copy.open()
    assert verify(bundle) == 0
    read = read_calibration(bundle)
    assert read is not None
    # (1 + number of scores at least as large) / 5
    assert read.p_values([0.0, 0.1, 0.2, 0.3, 0.4, 0.5]).tolist() == [1, 1, 0.8, 0.4, 0.4, 0.2]


def test_p_is_uniform_where_images_are_exchangeable():
    rng = np.random.default_rng(0)
    alarms = [
        Calibration(np.sort(rng.exponential(size=99))).p_values(rng.exponential(size=50)) <= 0.1
        for _ in range(100)
    ]
    assert np.mean(alarms) == pytest.approx(0.1, abs=0.02)


REFUSED = {
    "no distance": ({SCORE: score(offset=1)}, "an image and itself score 1, must be 0"),
    "below 0": ({SCORE: score(sign=-1)}, "they must be float32"),
    "another input": ({SCORE: score(first="x")}, "takes x, reconstruction"),
    "no graph": ({SCORE: b"nothing"}, "is not an ONNX model"),
    "falling": (
        {SCORE: score(), CALIBRATION: archive(scores=np.array([0.2, 0.1]))},
        "must be finite float64 .* rising",
    ),
    "float32": (
        {SCORE: score(), CALIBRATION: archive(scores=np.zeros(2, np.float32))},
        "must be finite float64",
    ),
    "none": (
        {SCORE: score(), CALIBRATION: archive(scores=np.zeros(0))},
        "must be finite float64",
    ),
    "no score": ({CALIBRATION: archive(scores=np.zeros(2))}, "is there, but not score"),
    "no archive": ({SCORE: score(), CALIBRATION: b"PK"}, "calibration.npz"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(spoil, case):
    files, message = REFUSED[case]
    copy = spoil()
    copy.write(ENCODER, encoder("image"))
    for name, data in files.items():
        copy.write(name, data)
    with pytest.raises(BundleError, match=message):
        verify(copy.open())


def test_a_score_needs_an_encoder(spoil):
    copy = spoil()
    copy.write(SCORE, score())
    with pytest.raises(BundleError, match=r"has score\.onnx without encoder\.onnx"):
        verify(copy.open())
