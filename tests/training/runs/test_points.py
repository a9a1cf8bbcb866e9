"""A mixture through the ordinary command: trained, resumed, looked at, measured, published."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.repository import Repository
from training.run import main
from training.stability.__main__ import main as stability

TINY = ["--network.width-G", "8", "--network.width-D", "8", "--batch-size", "32"]


def test_a_mixture_is_a_run_like_any_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--runs", str(tmp_path / "runs"), "--repository", str(tmp_path / "models")]
    length = ["--total-kimg", "3.2", "--tick-kimg", "1.6", "--evaluate-kimg", "1.6"]
    assert main(["ring-8", *TINY, *length, *places, "--packing", "2", "--select", "best"]) == 0
    run = tmp_path / "runs" / "00000-ring-8"
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {"quality.gaussians", "quality.good_points"} <= metrics[-1].keys()
    manifest = Repository(tmp_path / "models").bundle("ring-8").manifest
    found = {metric.name: metric for metric in manifest.metrics}
    assert found.keys() == {"gaussians", "good_points", "gaussians_reverse_kl"}
    protocol = found["gaussians"].protocol
    assert protocol["n"] == 2500
    assert protocol["floor"] == 8  # the data itself, rounded to bytes as the model is
    assert found["good_points"].protocol["floor"] > 0.97
    picture = np.asarray(Image.open(run / "samples" / "samples.png"))
    assert picture.shape == (384, 384)
    assert (picture < 100).any()
    capsys.readouterr()
    assert stability(["spectrum", str(run), "--batch-size", "64", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["radius"] > 0
    assert main(["--resume", str(run), "--total-kimg", "3.52"]) == 0
    assert "Published ring-8 version 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("recipe", "figure"), [("ring-8", "frechet_distance"), ("article", "good_points")]
)
def test_a_selection_by_a_figure_that_the_data_lacks_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recipe: str, figure: str
) -> None:
    assert main([recipe, "--select", figure, "--runs", str(tmp_path / "runs")]) == 2
    assert f"select is '{figure}', allowed: last, best, " in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
