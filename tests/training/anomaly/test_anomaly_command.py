"""`python -m training.evaluate anomaly MODEL`: figures by hand, and what it refuses."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from models.bundle.anomaly import read_calibration
from models.repository import Repository
from tests.training.anomaly.conftest import TRAIN, write_images
from training.anomaly.autoencoder import TOLERANCE, of_size, size_of
from training.anomaly.command import MODEL, is_asked, num_parameters, table
from training.anomaly.images import as_bytes
from training.data import DataConfig, load
from training.evaluate import main
from training.inversion.__main__ import main as encode
from training.inversion.opened import Opened
from training.inversion.score_command import scored

QUICK = ["--autoencoder-kimg", "0.5"]


def test_figures_are_those_of_the_published_graphs(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["anomaly", "usual", *QUICK, "--json", "--report", "report.json"]
    assert main(words) == 0
    output = capsys.readouterr()
    found = json.loads(output.out)
    assert found == json.loads((here / "report.json").read_text())
    assert "20 usual (0), 40 not" in output.err
    assert list(found["methods"]) == [MODEL, "pixel kNN", "PCA", "autoencoder"]

    bundle = Repository(here / "model-repository").bundle("usual")
    calibration = read_calibration(bundle)
    assert calibration is not None
    test = load(DataConfig(dataset="mnist", resolution=8, conditional=False, split="test"))
    is_usual = np.array(test.classes) == "0"
    scores = scored(Opened(bundle), as_bytes(test), None).score
    mine = found["methods"][MODEL]
    pairs = scores[~is_usual][:, None] > scores[is_usual]
    assert mine["auroc"]["value"] == pytest.approx(pairs.mean(), abs=1e-3)
    alarms = calibration.p_values(scores) <= 0.05
    assert mine["false_alarms"]["value"] == pytest.approx(alarms[is_usual].mean())
    assert mine["found"]["value"] == pytest.approx(alarms[~is_usual].mean())
    num = len(calibration.scores)
    assert found["images"] == {
        "train": 60 - num,
        "calibration": num,
        "usual": 20,
        "unusual": 40,
    }
    # The other side is bright in every unusual image: nothing is easier for the nearest pixels.
    nearest = found["methods"]["pixel kNN"]
    assert nearest["auroc"]["value"] == 1
    assert nearest["found"]["value"] == 1
    assert nearest["false_alarms"]["value"] <= 0.25

    text = table(found)
    assert f"| **{found['best']}** | **1.000 (1.000 .. 1.000)** |" in text
    assert f"{found['best']} is better than {MODEL}" in text or found["best"] == MODEL
    own = found | {"best": MODEL}
    assert f"the best AUROC is of {MODEL}" in table(own)


def test_an_autoencoder_of_equal_size(here: Path) -> None:
    bundle = Repository(here / "model-repository").bundle("usual")
    opened = Opened(bundle)
    wanted = num_parameters(bundle)
    assert wanted > size_of(opened.subject.G)
    network = of_size(opened.shape, bundle.manifest.z_dim, wanted)
    assert abs(size_of(network) - wanted) <= TOLERANCE * wanted


def test_other_classes_may_be_usual(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["anomaly", "usual@3", *QUICK, "--normal", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["normal"], found["images"]["usual"]) == (["1"], 40)
    assert found["methods"]["pixel kNN"]["auroc"]["value"] == 0


REFUSED = {
    "no encoder": (["usual@1"], "usual has no score.onnx; make one: python -m training.inversion"),
    "no calibration": (["usual@2"], "usual has no calibration.npz; make it: python -m training"),
    "seen": (["usual", "--data.split", "train"], "data is in part what the model was trained on"),
    "one class": (
        ["usual", "--data.path", "alone", "--trained-on", "data"],
        "data has the classes 0 alone, and all are",
    ),
    "no such class": (["usual", "--normal", "7"], "normal is '7', allowed: classes of the test"),
    "report": (["usual", "--report", "nowhere/x.json"], "its folder does not exist"),
    "alpha": (["usual", "--alpha", "2"], "alpha is 2"),
    "seed": (["usual", "--seed", "-1"], "seed is -1, allowed: 0 or more"),
    "length": (["usual", "--autoencoder-kimg", "0"], "autoencoder_kimg is 0"),
    "other images beside": (["usual", "--data.path", "alone"], "the images there are not those"),
    "other images": (["usual", "--trained-on", "alone"], "the images there are not those that"),
    "no model": (["nothing"], "MODEL is 'nothing'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, message = REFUSED[case]
    for part, seed in (("t10k", 5), ("train", 6)):
        write_images(here / "alone", part, [0] * 60, seed)
    quick = [] if "--autoencoder-kimg" in words else QUICK
    assert main(["anomaly", *words, *quick]) in (2, 3, 4)
    assert message in capsys.readouterr().err


def test_what_the_encoder_learned_from_is_no_test(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "models"
    shutil.copytree(here / "model-repository", copy)
    at = ["--repository", str(copy)]
    train = [*TRAIN[2:], "--real", "0.5", "--folder", str(tmp_path / "work")]
    held_out = ["--data.split", "test", "--data.held-out", "0"]
    assert encode(["encoder", "usual", *at, *train, *held_out]) == 0
    assert encode(["calibrate", "usual", *at]) == 0
    capsys.readouterr()
    assert main(["anomaly", "usual", *at, *QUICK]) == 2
    assert "data is in part what the encoder was trained on: 18 of 60" in capsys.readouterr().err


def test_the_word_and_a_model_of_that_name(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert is_asked(["anomaly", "usual"])
    assert is_asked(["anomaly", "anomaly", "--json"])
    assert is_asked(["anomaly", "--help"])
    assert not is_asked(["anomaly"])
    assert not is_asked(["anomaly", "--json"])
    assert not is_asked(["digits", "anomaly"])
    assert main(["anomaly", "--json"]) != 0
    assert "BUNDLE is 'anomaly'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["anomaly", "--help"])
    assert "--autoencoder-kimg" in capsys.readouterr().out
