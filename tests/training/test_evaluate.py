"""`python -m training.evaluate` on real bundles, from words to table, JSON and exit code."""

import json
import shutil
import subprocess
import sys

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save
from PIL import Image

from models.bundle import Bundle, write_bundle
from models.bundle.manifest import Metric
from models.repository import Repository
from training.cli.command import parse
from training.evaluate import main

FEW = ["--num-images", "100", "--features", "random"]


@pytest.fixture(scope="module")
def bundle(make_bundle):
    """A linear generator of 8x8 images; its manifest names the digits as its data."""
    return trained_on(make_bundle(size=8, num_classes=10), {"data": {"dataset": "digits"}})


def trained_on(bundle: Bundle, options, **fields) -> Bundle:
    if bundle.manifest.labels:
        fields = {"labels": tuple("0123456789"), **fields}
    manifest = msgspec.structs.replace(bundle.manifest, options=options, **fields)
    files = {name: (bundle.path / name).read_bytes() for name in manifest.files}
    return write_bundle(bundle.path.with_name("again"), manifest, files)


def test_from_the_command_line_to_json(bundle, tmp_path) -> None:
    report = tmp_path / "report.json"
    words = [str(bundle.path), *FEW, "--json", "--report", str(report)]
    command = [sys.executable, "-m", "training.evaluate", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == json.loads(report.read_text())
    assert (found["name"], found["version"], found["digest"]) == ("tiny", 1, bundle.digest)
    by_name = {metric["name"]: metric for metric in found["metrics"]}
    assert {"frechet_distance", "coverage", "modes", "label_agreement"} <= by_name.keys()
    assert by_name["coverage"]["protocol"]["n"] == 100
    assert by_name["frechet_distance"]["value"] > by_name["frechet_distance"]["protocol"]["floor"]
    assert "100 images, random features, against 1,797 images of digits" in done.stderr


def test_a_table_for_people_and_a_bundle_left_alone(bundle, tmp_path, capsys) -> None:
    repository = Repository(tmp_path)
    published = repository.publish("mine", bundle)
    before = {path: path.read_bytes() for path in published.path.iterdir()}
    for name in ("mine", "mine@1"):
        assert main([name, "--repository", str(tmp_path), *FEW, "--measures", "coverage"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].split() == ["figure", "value", "95%", "interval", "real", "noise"]
        assert lines[1].startswith("coverage  ^")
        assert "nearest_k 5" in lines[-2]
    assert {path: path.read_bytes() for path in published.path.iterdir()} == before
    assert repository.versions("mine") == [1]


def test_a_cache_keeps_the_classifier(bundle, tmp_path, capsys) -> None:
    words = [str(bundle.path), "--cache", str(tmp_path / "cache"), "--measures", "vendi"]
    assert main(words) == 0
    first = capsys.readouterr()
    assert main(words) == 0
    second = capsys.readouterr()
    assert "training a classifier" in first.err
    assert "training a classifier" not in second.err
    assert first.out == second.out
    assert "classifier: trained on 1,437 of the images" in first.out


def test_gates_end_with_8_and_name_all_that_fail(bundle, tmp_path, capsys) -> None:
    words = [str(bundle.path), *FEW, "--measures", "coverage", "recall"]
    assert main([*words, "--gate", "coverage>=0"]) == 0
    assert "gate 'coverage>=0': passed" in capsys.readouterr().err
    assert main([*words, "--gate", "coverage>=1", "--gate", "recall>1"]) == 8
    message = capsys.readouterr().err
    assert "gate 'coverage>=1': coverage is 0" in message
    assert "gate 'recall>1': recall is" in message


def test_not_worse_than_current_under_the_same_protocol(
    bundle, tmp_path, capsys, monkeypatch
) -> None:
    words = [str(bundle.path), *FEW, "--measures", "vendi", "--repository", str(tmp_path / "r")]
    assert main([*words, "--json"]) == 0
    (metric,) = json.loads(capsys.readouterr().out)["metrics"]

    def make_current(value, **protocol):
        old = Metric(name="vendi", value=value, protocol=metric["protocol"] | protocol)
        manifest = msgspec.structs.replace(bundle.manifest, metrics=(old,))
        files = {name: (bundle.path / name).read_bytes() for name in manifest.files}
        place = tmp_path / f"bundle-{len(list(tmp_path.iterdir()))}"
        Repository(tmp_path / "r").publish("tiny", write_bundle(place, manifest, files))

    gate = ["--gate", "not-worse:vendi"]
    assert main([*words, *gate]) == 0
    assert "no CURRENT" in capsys.readouterr().err
    make_current(metric["value"])
    assert main([*words, *gate]) == 0
    make_current(90.0, interval=[80.0, 99.0])
    assert main([*words, *gate]) == 8
    assert "must be >= 80: CURRENT (tiny version 2) has 90" in capsys.readouterr().err
    # What could never be compared is refused before an image is made.
    make_current(metric["value"], n=77)
    monkeypatch.setattr(
        "training.evaluation.samples.SampleBuilder.build", lambda *_: pytest.fail("began")
    )
    assert main([*words, *gate]) == 2
    assert "n 100 here, 77 there" in capsys.readouterr().err


def test_a_folder_of_ones_own(make_bundle, tmp_path, capsys) -> None:
    rng, photos = np.random.default_rng(0), tmp_path / "photos"
    photos.mkdir()
    for i in range(40):
        Image.fromarray(rng.integers(256, size=(8, 8), dtype=np.uint8)).save(photos / f"{i}.png")
    options = {"data": {"dataset": "folder", "path": "photos", "conditional": False}}
    bundle = trained_on(make_bundle(size=8), options)
    words = [str(bundle.path), "--measures", "coverage"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "the model was trained on images of its own, 'photos'" in said
    assert "--data.path DIR, or the folder of the run with --runs DIR" in said

    # The run that made it knows where they lay.
    run = tmp_path / "runs" / "00000-folder"
    shutil.copytree(bundle.path, run / "bundle")
    data = ["--data.path", str(photos), "--data.resolution", "8", "--data.channels", "1"]
    (run / "config.json").write_text(parse(["folder", *data]).to_json())
    assert main([*words, "--runs", str(tmp_path / "runs")]) == 0
    assert f"data: {photos}, by the run {run}" in capsys.readouterr().err
    (run / "config.json").write_text(
        parse(["folder", "--data.path", str(tmp_path / "gone"), *data[2:]]).to_json()
    )
    assert main([*words, "--runs", str(tmp_path / "runs")]) == 2
    assert "which is not there any more" in capsys.readouterr().err

    assert main([*words, "--data.path", str(photos)]) == 0
    out, err = capsys.readouterr()
    assert "n 20;" in out
    assert "random features, against 40 images of folder" in err
    assert "the model was trained on other data" in err


def test_data_that_an_unconditional_model_saw_without_labels_is_known(
    make_bundle, tmp_path, capsys
) -> None:
    from training.data import DataConfig, load

    seen = load(DataConfig(resolution=8, conditional=False))
    bundle = make_bundle(size=8)
    dataset = msgspec.structs.replace(bundle.manifest.dataset, fingerprint=seen.fingerprint)
    options = {"data": {"dataset": "digits", "conditional": False}}
    manifest = msgspec.structs.replace(bundle.manifest, options=options, dataset=dataset)
    files = {name: (bundle.path / name).read_bytes() for name in manifest.files}
    again = write_bundle(tmp_path / "bundle", manifest, files)
    assert main([str(again.path), *FEW, "--measures", "modes"]) == 0
    out, err = capsys.readouterr()
    assert "modes" in out
    assert "the model was trained on other data" not in err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([], 2, "BUNDLE is not given"),
        (["nonesuch"], 9, "BUNDLE is 'nonesuch': model 'nonesuch' is not in"),
        (["nowhere/bundle"], 9, "allowed: a folder that holds a manifest.json, or NAME[@VERSION]"),
        (["tiny@x"], 9, "with a whole number"),
        (["BUNDLE", "--features", "inception"], 2, "weights is not given"),
        (["BUNDLE", "--features", "onnx", "--weights", "nowhere"], 2, "a file that exists"),
        (["BUNDLE", "--features", "onnx", "--weights", __file__], 9, "an ONNX file with one input"),
        (["BUNDLE", "--num-images", "64"], 2, "more than the 64 features"),
        (["BUNDLE", "--num-images", "x"], 2, "--num-images"),
        (["BUNDLE", "--measures", "fid"], 2, "for the features 'inception' alone"),
        (["BUNDLE", "--data.no-conditional", "--measures", "modes"], 2, "has no labels"),
        (["BUNDLE", "--data.resolution", "16"], 2, "data gives images [1, 16, 16], the model mak"),
        (["BUNDLE", "--data.dataset", "nonesuch"], 2, "data.dataset is 'nonesuch', allowed"),
        (["BUNDLE", "--device", "abacus"], 2, "device is 'abacus', allowed: cpu"),
        (["BUNDLE", "--report", "no/where.json"], 2, "report is 'no/where.json': its folder"),
        (["BUNDLE", "--gate", "fid<=3"], 2, "fid is not going to be measured"),
        (["BUNDLE", "--gate", "beauty>1"], 2, "no figure 'beauty'"),
        (["BUNDLE", "--nonesuch"], 2, "--nonesuch"),
    ],
)
def test_mistakes_are_named_before_anything_is_measured(
    bundle, tmp_path, capsys, monkeypatch, words, code, says
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "training.evaluation.samples.SampleBuilder.build", lambda *_: pytest.fail("began")
    )
    words = [str(bundle.path) if word == "BUNDLE" else word for word in words]
    assert main(words) == code
    out, err = capsys.readouterr()
    assert says in err.replace("\n", " ")
    assert out == ""


def test_a_model_of_a_weighted_training_knows_its_data(make_bundle, capsys) -> None:
    from training.data import DataConfig, load

    seen = load(DataConfig(resolution=8, weights=("0=9",)))
    options = {"data": {"dataset": "digits", "weights": ["0=9"]}}
    digests = {"fingerprint": seen.fingerprint, "content": seen.content}
    bundle = make_bundle(size=8, num_classes=10)
    dataset = msgspec.structs.replace(bundle.manifest.dataset, **digests)
    weighted = trained_on(bundle, options, dataset=dataset)
    assert Bundle.open(weighted.path).manifest.dataset.content == seen.content
    assert main([str(weighted.path), *FEW, "--measures", "modes"]) == 0
    assert "the model was trained on other data" not in capsys.readouterr().err


def test_other_classes_by_the_same_number_are_refused(make_bundle, capsys) -> None:
    options = {"data": {"dataset": "digits"}}
    bundle = trained_on(make_bundle(size=8, num_classes=10), options, labels=tuple("1023456789"))
    assert main([str(bundle.path), *FEW]) == 2
    error = capsys.readouterr().err
    assert "the model's classes are ['1', '0'," in error
    assert "the data's ['0', '1'," in error
    assert main([str(bundle.path), *FEW, "--measures", "coverage"]) == 0


def test_features_that_are_not_finite_are_refused(bundle, tmp_path, capsys) -> None:
    """Log of what is negative; a traceback, or JSON that no program reads, helps nobody."""
    rng = np.random.default_rng(0)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["f"], ["rows"]),
            helper.make_node("MatMul", ["rows", "w"], ["product"]),
            helper.make_node("Log", ["product"], ["y"]),
        ],
        "log",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 20])],
        [numpy_helper.from_array(rng.normal(size=(192, 20)).astype(np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    save(model, tmp_path / "log.onnx")
    weights = ["--features", "onnx", "--weights", str(tmp_path / "log.onnx")]
    assert main([str(bundle.path), *weights, "--num-images", "100", "--json"]) == 9
    out, err = capsys.readouterr()
    assert out == ""
    assert "real images are not finite" in err


def test_a_bundle_that_names_no_data_asks_for_it(make_bundle, capsys) -> None:
    assert main([str(make_bundle().path)]) == 2
    assert "data.dataset is None, allowed: " in capsys.readouterr().err


def test_an_altered_bundle_is_refused(bundle, tmp_path, capsys) -> None:
    published = Repository(tmp_path).publish("mine", bundle)
    (published.path / "card.md").write_text("altered")
    assert main(["mine", "--repository", str(tmp_path)]) == 9
    assert "altered after export" in capsys.readouterr().err


def test_a_report_that_can_not_be_written_is_named(bundle, tmp_path, capsys) -> None:
    words = [str(bundle.path), *FEW, "--measures", "modes", "--report", str(tmp_path)]
    assert main(words) == 9
    assert "report is" in capsys.readouterr().err


def test_help_explains_every_option(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for option in ("--features", "--gate", "--num-images", "--data.dataset", "--cache", "--json"):
        assert option in text
