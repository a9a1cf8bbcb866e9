"""The evaluation on generators of which the right answer is known."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, save

from models.bundle.generator import Sampler
from models.bundle.manifest import Metric
from training.data import DataConfig, ImageSet, load
from training.errors import ConfigError, EvaluationError
from training.evaluation import QUICK, Plan, evaluate, resolve
from training.evaluation.evaluator import RESULTS, evaluate_sampler, protocols
from training.evaluation.features.base import Extractor
from training.evaluation.measures import ALL_FIGURES, MEASURES
from training.evaluation.plan import FEATURES, WHOLE, FeatureKind
from training.evaluation.report import comparisons, warnings

SMALL = dataclasses.replace(QUICK, max_images=400, num_resamples=20)


@pytest.fixture(scope="module")
def digits():
    return load(DataConfig(resolution=16))


class Remembering:
    """A "generator" that answers with a real image of the label, or of another label."""

    def __init__(self, image_set, shift=0, noise=0):
        self.images = image_set.images.permute(0, 2, 3, 1).numpy()
        self.by_label = [np.flatnonzero(image_set.labels == i) for i in range(10)]
        self.rng = np.random.default_rng(0)
        self.shift, self.noise = shift, noise

    def __call__(self, z, label=None, psi=None):
        label = (label + self.shift) % 10
        images = self.images[[self.rng.choice(self.by_label[i]) for i in label]]
        noise = self.rng.integers(-self.noise, self.noise + 1, images.shape)
        return (images + noise).clip(0, 255).astype(np.uint8)


def one_image(z, label=None, psi=None):
    image = np.zeros((16, 16, 1), np.uint8)
    image[3:13, 7:9] = 255  # a one
    return np.tile(image, (len(z), 1, 1, 1))


def measured(generate, image_set, plan=SMALL, num_classes=10):
    sampler = Sampler(generate, z_dim=4, num_classes=num_classes)
    metrics = evaluate_sampler(sampler, image_set, plan, num_classes=num_classes)
    return {metric.name: metric for metric in metrics}


@pytest.fixture(scope="module")
def remembered(digits):
    return measured(Remembering(digits), digits)


@pytest.fixture(scope="module")
def collapsed(digits):
    return measured(one_image, digits)


def test_every_figure_is_there_with_all_that_it_needs_to_be_read(remembered) -> None:
    of_points = set(MEASURES["mixture"].figures)
    assert set(remembered) == set(ALL_FIGURES) - {"fid", "kid"} - of_points
    for metric in remembered.values():
        protocol = metric.protocol
        assert {"n", "seeds", "features", "data", "floor", "ceiling"} <= protocol.keys()
        assert protocol["seeds"].endswith("label seed % 10")
        if metric.name != "modes":
            low, high = protocol["interval"]
            assert low <= metric.value <= high
    assert remembered["coverage"].protocol["n"] == 400
    assert remembered["label_agreement"].protocol["n"] == 1000
    assert remembered["memorised"].protocol["reference_n"] == 1797


def test_real_images_are_as_good_as_the_floor(remembered) -> None:
    for name in ("precision", "recall", "density", "coverage", "vendi", "label_agreement"):
        metric = remembered[name]
        assert metric.value == pytest.approx(metric.protocol["floor"], rel=0.15, abs=0.1), name
    distance = remembered["frechet_distance"]
    assert distance.value < distance.protocol["ceiling"] / 20
    assert remembered["label_agreement"].value >= 0.98
    assert remembered["modes"].value == 10


def test_but_a_generator_that_repeats_them_is_caught(remembered) -> None:
    assert remembered["memorised"].value == 1
    assert remembered["authenticity"].value == 0
    assert remembered["memorised"].protocol["floor"] <= 0.02
    assert 0.3 < remembered["authenticity"].protocol["floor"] < 0.8


def test_the_whole_data_is_the_reference_and_the_floor_stays_of_halves(digits) -> None:
    """As published figures have it; more images may be generated than there are real ones."""
    figures = ("frechet_distance", "coverage", "precision")
    plan = dataclasses.replace(
        SMALL, figures=figures, whole_data=True, num_images=2000, nearest_k=3, lenient=False
    )
    found = measured(Remembering(digits), digits, plan)
    protocol = found["coverage"].protocol
    assert (protocol["n"], protocol["reference_n"], protocol["floor_n"]) == (2000, 1797, 898)
    assert (protocol["reference"], protocol["nearest_k"]) == (WHOLE, 3)
    halves = measured(
        Remembering(digits), digits, dataclasses.replace(plan, whole_data=False, num_images=898)
    )
    assert "reference" not in halves["coverage"].protocol
    assert halves["coverage"].protocol["reference_n"] == 898
    for name in figures:
        floor = found[name].protocol["floor"]
        assert floor == pytest.approx(halves[name].protocol["floor"], rel=1e-3, abs=1e-4), name
    # Draws of the data itself are nearer to all of it than to another half.
    assert found["frechet_distance"].value < halves["frechet_distance"].value
    default = resolve(dataclasses.replace(plan, num_images=None), digits, num_classes=10)
    assert default.num_images == 50_000


def metric_of(name, **protocol):
    published = {"n": 50_000, "reference": WHOLE, "nearest_k": 3}
    return Metric(name=name, value=1.0, protocol={**published, **protocol})


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        (metric_of("fid", features="Inception v3"), "note: fid compares with published FIDs"),
        (
            metric_of("fid", features="Inception v3", n=9),
            "fid does not compare .*n is 9, not 50000",
        ),
        (
            metric_of("frechet_distance", features="random", reference=None),
            "does not compare .*features are random, not Inception's; the reference is a half",
        ),
        (
            metric_of("precision", features="ONNX network VGG-16"),
            "precision compares with .*pr50k3",
        ),
        (metric_of("precision", features="Inception", nearest_k=5), "not VGG-16's; nearest_k is 5"),
    ],
)
def test_it_is_said_whether_a_figure_compares_with_published_ones(metric, says) -> None:
    (line,) = comparisons((metric, metric_of("vendi")))
    assert re.search(says, line)


def test_a_generator_of_one_image_is_caught(collapsed) -> None:
    assert collapsed["coverage"].value < 0.05
    assert collapsed["recall"].value < 0.05
    assert collapsed["vendi"].value == pytest.approx(1)
    assert collapsed["modes"].value == 1
    assert collapsed["mode_reverse_kl"].value == pytest.approx(np.log(10), rel=0.05)
    assert collapsed["label_agreement"].value == 0.1
    assert collapsed["memorised"].value == 0


def test_noise_is_at_the_ceiling(digits) -> None:
    rng = np.random.default_rng(9)

    def noise(z, label=None, psi=None):
        return rng.integers(256, size=(len(z), 16, 16, 1), dtype=np.uint8)

    found = measured(noise, digits)
    del found["recall"]  # balls of noise are all as wide: it swings
    for metric in found.values():
        ceiling = metric.protocol["ceiling"]
        assert metric.value == pytest.approx(ceiling, rel=0.25, abs=0.1), metric.name


def test_wrong_labels_are_counted(digits) -> None:
    plan = Plan(figures=("label_agreement", "modes"))
    found = measured(Remembering(digits, shift=1), digits, plan)
    assert list(found) == ["modes", "label_agreement"]
    assert found["label_agreement"].value < 0.02
    assert found["label_agreement"].protocol["held_out_accuracy"] >= 0.97
    assert found["label_agreement"].protocol["held_out_n"] == 360


def test_it_is_deterministic_and_a_seed_gives_other_images(digits) -> None:
    def seeing(z, label=None, psi=None):
        return (z.mean(axis=1)[:, None, None, None] * 99 % 255).astype(np.uint8) * np.ones(
            (1, 16, 16, 1), np.uint8
        )

    plan = dataclasses.replace(SMALL, figures=("vendi", "kernel_distance"), lenient=False)
    first, second = measured(seeing, digits, plan), measured(seeing, digits, plan)
    assert first == second
    other = measured(seeing, digits, dataclasses.replace(plan, seed=1))
    assert other["kernel_distance"].value != first["kernel_distance"].value
    assert first["vendi"].protocol["seeds"].startswith("0..399")
    assert other["vendi"].protocol["seeds"].startswith("1000..1399")


def test_classifier_features_tell_real_from_collapsed(digits, tmp_path) -> None:
    figures = ("frechet_distance",)
    plan = dataclasses.replace(SMALL, features="classifier", figures=figures, cache=tmp_path)
    (real,) = measured(Remembering(digits), digits, plan).values()
    (wrong,) = measured(one_image, digits, plan).values()
    assert real.protocol["features"].startswith("classifier: trained on 1,437 of the images")
    assert real.value < wrong.value / 20


def test_data_without_labels_has_the_figures_that_need_none(digits) -> None:
    data = dataclasses.replace(digits, labels=None, label_names=None)
    found = measured(one_image, data, SMALL, num_classes=0)
    assert set(found) == set(ALL_FIGURES) - {
        *("fid", "kid", "modes", "mode_reverse_kl", "label_agreement"),
        *MEASURES["mixture"].figures,
    }
    assert "label" not in found["vendi"].protocol["seeds"]


def test_an_unconditional_model_on_labelled_data_has_modes_but_no_label_agreement(digits) -> None:
    found = measured(one_image, digits, SMALL, num_classes=0)
    assert found["modes"].value == 1
    assert "label_agreement" not in found


@pytest.mark.parametrize("num", [1, 5, 30])
def test_too_little_data_has_fewer_figures_and_no_error(digits, num) -> None:
    data = dataclasses.replace(digits, images=digits.images[:num], labels=digits.labels[:num])
    found = measured(one_image, data, SMALL)
    assert "frechet_distance" not in found
    assert ("coverage" in found) == (num == 30)
    assert ("label_agreement" in found) == (num == 30)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"features": "beauty"}, r"features is 'beauty', allowed: auto, classifier, random"),
        ({"features": "inception"}, r"weights is not given, the features 'inception'"),
        (
            {"features": "onnx", "weights": Path("/nowhere/net.onnx")},
            r"allowed: a file that exists",
        ),
        ({"features": "random", "weights": Path(__file__)}, r"'random' read none"),
        ({"figures": ("beauty",)}, r"measures names 'beauty', allowed .* frechet_distance"),
        ({"figures": ("fid",)}, r"fid and kid are for the features 'inception' alone"),
        ({"num_images": 899}, r"num_images is 899, allowed: 2 \.\. 898, half of the 1797 real"),
        ({"num_images": 1}, r"num_images is 1"),
        ({"num_images": 64}, r"num_images is 64, allowed for frechet_distance: more than the 64"),
        (
            {"num_images": 5, "figures": ("coverage",)},
            r"num_images is 5, allowed for coverage: 6 or more",
        ),
        ({"seed": -1}, r"seed is -1"),
    ],
)
def test_what_can_not_be_measured_is_refused_before_anything_is_made(digits, options, says) -> None:
    with pytest.raises(ConfigError, match=says):
        measured(lambda *_: pytest.fail("an image was made"), digits, Plan(**options))


@pytest.mark.parametrize(
    ("options", "num_classes", "says"),
    [
        ({"features": "classifier"}, 0, r"features is 'classifier', but the data .* has no labels"),
        ({"figures": ("modes",)}, 0, r"measures names modes: the data 'digits' has no labels"),
        ({"figures": ("label_agreement",)}, 10, r"the data 'digits' has no labels"),
    ],
)
def test_labels_that_the_data_lacks(digits, options, num_classes, says) -> None:
    data = dataclasses.replace(digits, labels=None, label_names=None)
    with pytest.raises(ConfigError, match=says):
        resolve(Plan(**options), data, num_classes=num_classes)


def test_inceptions_figures_have_the_names_that_are_theirs(digits, tmp_path) -> None:
    weights = tmp_path / "inception.pth"
    weights.write_bytes(b"not opened yet")
    images = torch.zeros(5000, 1, 2, 2, dtype=torch.uint8)
    data = dataclasses.replace(digits, images=images, labels=None, label_names=None)
    plan = Plan(features="inception", weights=weights, num_images=2049)
    figures = resolve(plan, data, num_classes=0).figures
    assert {"fid", "kid", "coverage"} <= set(figures)
    assert not {"frechet_distance", "kernel_distance"} & set(figures)
    few = dataclasses.replace(plan, num_images=2048)
    with pytest.raises(ConfigError, match=r"num_images is 2048, allowed for fid: more than the 2"):
        resolve(few, data, num_classes=0)
    with pytest.raises(ConfigError, match=r"'frechet_distance', allowed .* 'inception': fid, kid"):
        resolve(dataclasses.replace(plan, figures=("frechet_distance",)), data, num_classes=0)


def test_labels_that_the_model_lacks(digits) -> None:
    with pytest.raises(ConfigError, match=r"the model takes no labels, the data has 10 classes"):
        resolve(Plan(figures=("label_agreement",)), digits, num_classes=0)


@pytest.mark.parametrize(
    ("labels", "figures", "says"),
    [
        (tuple("1023456789"), (), r"classes are \['1', '0', .*, the data's \['0', '1'"),
        (tuple("1023456789"), ("label_agreement",), r"classes are \['1', '0'"),
        (("a", "b"), (), r"classes are \['a', 'b'\], the data's \['0'"),
    ],
)
def test_as_many_classes_are_not_the_same_classes(digits, labels, figures, says) -> None:
    plan = dataclasses.replace(SMALL, figures=figures)
    with pytest.raises(ConfigError, match=says):
        resolve(plan, digits, num_classes=len(labels), labels=labels)
    others = dataclasses.replace(plan, figures=("coverage", "modes"))
    assert resolve(others, digits, num_classes=10, labels=labels).figures == ("coverage", "modes")
    assert resolve(plan, digits, num_classes=10, labels=tuple("0123456789")).figures


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_end_it_at_the_first_batch(digits, monkeypatch, bad) -> None:
    num_runs = 0

    def run(images):
        nonlocal num_runs
        num_runs += 1
        rows = images.float().flatten(1)[:, :16].numpy()
        rows[3, 5] = bad
        return rows

    def make(source):
        return Extractor(name="random", description="broken", num_features=16, run=run)

    monkeypatch.setitem(FEATURES, "random", FeatureKind(make=make, num_features=16))
    with pytest.raises(EvaluationError, match=r"features of 1 of 64 real images are not finite"):
        measured(lambda *_: pytest.fail("an image was made"), digits)
    assert num_runs == 1


def test_what_is_the_same_for_real_images_and_noise_is_warned_of(digits, monkeypatch) -> None:
    def make(source):
        def run(images):
            return np.ones((len(images), 16), np.float32)

        return Extractor(name="random", description="constant", num_features=16, run=run)

    monkeypatch.setitem(FEATURES, "random", FeatureKind(make=make, num_features=16))
    found = tuple(measured(one_image, digits, dataclasses.replace(SMALL, num_resamples=2)).values())
    warned = {line.split()[1] for line in warnings(found)}
    assert {"frechet_distance", "coverage", "vendi"} <= warned
    assert not {"memorised", "label_agreement"} & warned


def test_a_protocol_is_known_before_anything_is_made(digits, remembered) -> None:
    schedule = resolve(SMALL, digits, num_classes=10)
    expected = protocols(schedule, digits, schedule.figures, num_classes=10)
    assert expected.keys() == remembered.keys()
    for name, protocol in expected.items():
        measured = remembered[name].protocol
        assert {k: v for k, v in measured.items() if k not in RESULTS} == protocol


def test_weights_of_a_training_do_not_make_other_data(digits) -> None:
    weighted = load(DataConfig(resolution=16, weights=("0=5",)))
    assert weighted.fingerprint != digits.fingerprint
    schedule = resolve(SMALL, digits, num_classes=10)
    plain, other = (
        protocols(schedule, data, ["coverage", "modes"], num_classes=10)
        for data in (digits, weighted)
    )
    assert plain == other


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


def test_evaluate_reads_the_onnx_file(tmp_path, digits) -> None:
    onnx_lookup(tmp_path / "model.onnx", digits)
    metrics = {m.name: m for m in evaluate(tmp_path / "model.onnx", 4, digits, SMALL)}
    assert metrics["label_agreement"].value >= 0.9  # mean digits are still digits
    assert metrics["coverage"].value < 0.5  # but ten images are no data
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(EvaluationError, match=r"model\.onnx"):
        evaluate(tmp_path / "model.onnx", 4, digits, SMALL)


def test_large_sets_are_subsampled() -> None:
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

    found = measured(generate, data, Plan(figures=("label_agreement",)), num_classes=2)
    metric = found["label_agreement"]
    assert metric.value == 1.0
    assert metric.protocol["held_out_n"] == 1000
    assert "on 4000 real images" in metric.protocol["features"]
