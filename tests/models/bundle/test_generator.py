import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from models.bundle.generator import CpuGenerator, Sampler
from models.errors import BundleError
from models.latents import latents


def test_any_batch_gives_the_same_images(classes):
    generate = CpuGenerator(classes.model_path, num_threads=1)
    z, label = latents(range(65), 6), np.arange(65) % 3
    together = generate(z, label)
    assert together.shape == (65, 8, 8, 1)
    assert together.dtype == np.uint8
    assert len(np.unique(together)) > 50
    for size in (1, 2, 64):
        assert np.array_equal(generate(z[:size], label[:size]), together[:size])


def test_a_label_is_fed_only_where_taken(grey, classes):
    z = latents(range(3), 6)
    label = np.zeros(3, np.int64)
    assert np.array_equal(CpuGenerator(grey.model_path)(z, label), CpuGenerator(grey.model_path)(z))
    ones = CpuGenerator(classes.model_path)(z, label + 1)
    assert not np.array_equal(CpuGenerator(classes.model_path)(z, label), ones)


@pytest.mark.parametrize("data", [b"", b"no model", b"\x08\x07" * 50])
def test_a_file_that_is_no_model(tmp_path, data):
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"model\.onnx: .*export the model again"):
        CpuGenerator(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(BundleError, match=r"(?s)model\.onnx.*export the model again"):
        CpuGenerator(tmp_path / "model.onnx")


def identity(path, source, target):
    """A model of one node."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", [source], [target])],
        "identity",
        [info(source, TensorProto.FLOAT, ["n"])],
        [info(target, TensorProto.FLOAT, ["n"])],
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)


@pytest.mark.parametrize(("source", "target"), [("x", "image"), ("z", "y"), ("psi", "image")])
def test_a_model_that_is_no_generator(tmp_path, source, target):
    identity(tmp_path / "model.onnx", source, target)
    with pytest.raises(BundleError, match=f"takes {source} and gives {target}; a generator takes"):
        CpuGenerator(tmp_path / "model.onnx")


def test_sampler_takes_latents_and_labels_of_the_contract():
    calls = []

    def generate(z, label=None, psi=None):
        calls.append((z, label))
        return np.zeros((len(z), 1, 1, 1), np.uint8)

    seeds = np.array([0, 7, 2**64 - 1], dtype=np.uint64)
    Sampler(generate, z_dim=5, num_classes=10)(seeds)
    Sampler(generate, z_dim=5, num_classes=0)(seeds)
    (z, label), (_, none) = calls
    assert np.array_equal(z, latents([0, 7, 2**64 - 1], 5))
    assert label.dtype == np.int64
    assert label.tolist() == [0, 7, (2**64 - 1) % 10]
    assert none is None
