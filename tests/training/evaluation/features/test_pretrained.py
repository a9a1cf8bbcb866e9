"""Networks from files: what is read, and what is refused."""

import io
import pickle
import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from training.data import DataConfig, load
from training.errors import EvaluationError
from training.evaluation.features.base import Source, random_features
from training.evaluation.features.pretrained import _rgb, inception_features, onnx_features


@pytest.fixture(scope="module")
def digits():
    return load(DataConfig(resolution=8))


class Untrained(FeatureExtractorInceptionV3):
    """Inception of random weights: the published ones can't be had here, the file's form can."""

    def load_state_dict(self, *_args, **_options):
        torch.manual_seed(0)
        for module in self.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    torch.save({}, folder / "nothing.pth")
    network = Untrained("inception", ["2048"], str(folder / "nothing.pth"))
    torch.save(network.state_dict(), folder / "inception.pth")
    return network, folder / "inception.pth"


def test_inception_reads_the_published_form(digits, untrained) -> None:
    network, file = untrained
    extractor = inception_features(Source(image_set=digits, weights=file))
    assert (extractor.num_features, "sha256" in extractor.description) == (2048, True)
    images = digits.images[:2]
    expected = network(images.expand(-1, 3, -1, -1))[0].numpy()
    assert np.allclose(extractor.run(images), expected, atol=1e-5)
    assert np.abs(expected).max() > 0


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


@pytest.mark.parametrize("kind", ["empty", "text", "pickle", "code", "other", "list"])
def test_what_is_no_inception_is_refused_and_no_code_of_it_runs(digits, tmp_path, kind) -> None:
    file = tmp_path / "weights.pth"
    tensors = io.BytesIO()
    torch.save({"a": torch.zeros(1)} if kind == "other" else [1], tensors)
    evil = io.BytesIO()
    torch.save({"a": Evil()}, evil)
    content = {
        "empty": b"",
        "text": b"weights",
        "pickle": pickle.dumps(Evil()),
        "code": evil.getvalue(),
        "other": tensors.getvalue(),
        "list": tensors.getvalue(),
    }
    file.write_bytes(content[kind])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(EvaluationError, match=r"weights is .*weights.pth.*2015-12-05"):
            inception_features(Source(image_set=digits, weights=file))


def graph(path, datatype, shape, nodes, output_shape, initializers=()):
    given = helper.make_tensor_value_info("pixels", datatype, shape)
    found = helper.make_tensor_value_info("rows", TensorProto.FLOAT, output_shape)
    model = helper.make_graph(nodes, "features", [given], [found], list(initializers))
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(model, opset_imports=opset, ir_version=9), path)
    return path


def means(datatype, shape, path, tokens=False):
    """Mean of every channel; behind a first token of it, another, if wanted."""
    axes = numpy_helper.from_array(np.array([2, 3], np.int64), "axes")
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["mean"], keepdims=0),
    ]
    if not tokens:
        nodes.append(helper.make_node("Identity", ["mean"], ["rows"]))
        return graph(path, datatype, shape, nodes, ["n", 3], [axes])
    one = numpy_helper.from_array(np.array([1], np.int64), "one")
    nodes += [
        helper.make_node("Unsqueeze", ["mean", "one"], ["first"]),
        helper.make_node("Neg", ["first"], ["second"]),
        helper.make_node("Concat", ["first", "second"], ["rows"], axis=1),
    ]
    return graph(path, datatype, shape, nodes, ["n", 2, 3], [axes, one])


def test_onnx_of_uint8_gets_the_pixels_as_they_are(digits, tmp_path) -> None:
    file = means(TensorProto.UINT8, ["n", 3, "h", "w"], tmp_path / "net.onnx")
    extractor = onnx_features(Source(image_set=digits, weights=file))
    assert extractor.num_features == 3
    assert "net.onnx, of uint8 pixels, 3 features, sha256 " in extractor.description
    expected = digits.images[:4].float().mean((2, 3)).expand(-1, 3)
    assert np.allclose(extractor.run(digits.images[:4]), expected)


@pytest.mark.parametrize("side", [32, "s"])
@pytest.mark.parametrize("tokens", [False, True])
def test_onnx_of_float32_gets_what_dinov2_takes(digits, tmp_path, side, tokens) -> None:
    shape = ["n", 3, side, side]
    file = means(TensorProto.FLOAT, shape, tmp_path / "net.onnx", tokens)
    extractor = onnx_features(Source(image_set=digits, weights=file))
    assert f"at {side if side == 32 else 224}x" in extractor.description
    white = torch.full((1, 1, 8, 8), 255, dtype=torch.uint8)
    expected = [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    assert np.allclose(extractor.run(white), [expected], atol=1e-3)


def test_what_is_no_such_network_is_refused(digits, tmp_path) -> None:
    (tmp_path / "text.onnx").write_bytes(b"no graph")
    identity = [helper.make_node("Identity", ["pixels"], ["rows"])]
    files = {
        "text": tmp_path / "text.onnx",
        "flat": graph(tmp_path / "flat.onnx", TensorProto.FLOAT, ["n", 9], identity, ["n", 9]),
        "images": graph(
            tmp_path / "images.onnx", TensorProto.FLOAT, ["n", 3, 8, 8], identity, ["n", 3, 8, 8]
        ),
    }
    for name, file in files.items():
        with pytest.raises(EvaluationError, match=rf"weights is .*{name}\.onnx.*ONNX file with"):
            onnx_features(Source(image_set=digits, weights=file))


def test_random_features_are_the_same_for_ever(digits) -> None:
    first, second = (random_features(Source(image_set=digits)) for _ in range(2))
    assert first.description == second.description
    rows = first.run(digits.images[:3])
    assert np.array_equal(rows, second.run(digits.images[:3]))
    assert rows.shape == (3, first.num_features)
    assert not np.allclose(rows[0], rows[1])


def test_transparent_places_lie_on_grey_for_networks_that_know_none():
    images = torch.tensor([[10, 200, 30, 0], [10, 200, 30, 255], [10, 200, 30, 51]])
    shown = _rgb(images.to(torch.uint8)[:, :, None, None])
    assert shown.flatten(1).tolist() == [[128, 128, 128], [10, 200, 30], [104, 142, 108]]
