"""The evaluation on generators of which the right answer is known."""

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, save

from models.generator import Sampler
from training.data import DataConfig, ImageSet, load
from training.evaluation import evaluate
from training.evaluation.label_agreement import features, label_agreement


@pytest.fixture(scope="module")
def digits():
    return load(DataConfig(resolution=16))


def remembering(image_set, lie=0.0):
    """A "generator" that answers with a real image of the label, or of the next label."""
    images = image_set.images.permute(0, 2, 3, 1).numpy()
    by_label = [np.flatnonzero(image_set.labels == i) for i in range(10)]
    rng = np.random.default_rng(0)

    def generate(z, label=None, psi=None):
        shown = np.where(rng.random(len(label)) < lie, (label + 1) % 10, label)
        return images[[rng.choice(by_label[i]) for i in shown]]

    return Sampler(generate, z_dim=4, num_classes=10)


def test_real_images_reach_the_ceiling(digits):
    metric = label_agreement(remembering(digits), digits)
    assert metric.name == "label_agreement"
    assert metric.value >= 0.98
    assert metric.protocol["n"] == 1000
    assert metric.protocol["held_out_n"] == 360
    assert metric.protocol["held_out_accuracy"] >= 0.97
    assert metric.protocol["seeds"] == "0..999, label seed % 10"


def test_wrong_labels_are_counted(digits):
    metric = label_agreement(remembering(digits, lie=0.3), digits)
    assert 0.65 <= metric.value <= 0.75


def test_it_is_deterministic(digits):
    first, second = (label_agreement(remembering(digits), digits) for _ in range(2))
    assert first == second


def test_large_sets_are_subsampled():
    rng = np.random.default_rng(0)
    labels = torch.arange(6000) % 2
    noise = torch.from_numpy(rng.integers(0, 100, (6000, 3, 4, 4), dtype=np.uint8))
    images = noise + (labels * 100).to(torch.uint8)[:, None, None, None]
    data = ImageSet("two", images, labels, ("dark", "light"), "", ())

    def generate(z, label=None, psi=None):
        return (
            np.full((len(z), 4, 4, 3), 50, np.uint8)
            + (label * 100).astype(np.uint8)[:, None, None, None]
        )

    metric = label_agreement(Sampler(generate, z_dim=1, num_classes=2), data)
    assert metric.value == 1.0
    assert metric.protocol["held_out_n"] == 1000
    assert "on 4000 real images" in metric.protocol["classifier"]


@pytest.mark.parametrize("labels", [[0] * 20, [0, 1, 0]])
def test_too_little_data_gives_no_figure(labels):
    images = torch.zeros(len(labels), 1, 8, 8, dtype=torch.uint8)
    data = ImageSet("small", images, torch.tensor(labels), ("a", "b"), "", ())
    sampler = Sampler(lambda *_: pytest.fail("nothing to judge"), z_dim=1, num_classes=2)
    assert label_agreement(sampler, data) is None


def test_features_are_means_of_blocks():
    images = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    images[0, 0, :2, :2] = torch.tensor([[0, 255], [255, 255]], dtype=torch.uint8)
    found = features(images)
    assert found.shape == (1, 64)
    assert found[0, 0] == pytest.approx(0.75)
    assert found[0, 1:].max() == 0


def onnx_lookup(path, image_set):
    """An ONNX file that answers a label with the mean image of the class."""
    means = np.stack(
        [
            image_set.images[image_set.labels == i].float().mean(0).permute(1, 2, 0).byte().numpy()
            for i in range(10)
        ]
    )
    graph = helper.make_graph(
        [helper.make_node("Gather", ["means", "label"], ["image"])],
        "lookup",
        [
            helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 4]),
            helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"]),
        ],
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 16, 16, 1])],
        [numpy_helper.from_array(means, "means")],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)


def test_evaluate_reads_the_onnx_file(tmp_path, digits):
    onnx_lookup(tmp_path / "model.onnx", digits)
    (metric,) = evaluate(tmp_path / "model.onnx", 4, digits)
    assert metric.value >= 0.9  # mean digits are still digits


def test_unconditional_data_has_no_figure(tmp_path):
    data = load(DataConfig(resolution=8, conditional=False))
    assert evaluate(tmp_path / "not-even-opened.onnx", 4, data) == ()
