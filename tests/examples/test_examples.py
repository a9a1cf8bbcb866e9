"""Every script of examples/ runs, and does what its first lines say."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from models.bundle import Bundle
from models.repository import Repository

EXAMPLES = Path(__file__).parents[2] / "examples"
TINY = ["--data.resolution", "16", "--network.ngf", "4", "--network.ndf", "4", "--batch-size", "16"]


def run(script: str, *words: str) -> int:
    """A script's main, with arguments; importing it runs nothing."""
    code: int = runpy.run_path(str(EXAMPLES / script))["main"](list(words))
    return code


@pytest.fixture(autouse=True)
def in_a_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_page_names_every_script_and_each_is_short() -> None:
    page = (EXAMPLES / "README.md").read_text()
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert len(scripts) == 5
    for path in scripts:
        assert f"[{path.name}]({path.name})" in page
        lines = path.read_text().splitlines()
        assert len(lines) < 60, path.name
        assert any(f"python examples/{path.name}" in line for line in lines[:10]), path.name


@pytest.mark.parametrize(("model", "size"), [("colour", (8 * 16, 3 * 16)), ("grey", (64, 64))])
def test_call_server(
    model: str,
    size: tuple[int, int],
    tiny_repository: Path,
    start_server: Callable[..., Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = start_server(tiny_repository, "--models", model)
    assert run("call_server.py", "--url", server.url) == 0
    assert f"{model} version" in capsys.readouterr().out
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.size == size
        assert len(set(picture.convert("L").tobytes())) > 10


def test_call_server_without_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("call_server.py", "--url", "http://127.0.0.1:9") == 1
    assert "error: " in capsys.readouterr().out


def test_train_on_folder(tmp_path: Path) -> None:
    short = ["--total-kimg", "0.032", "--tick-kimg", "0.032", "--evaluation", "none"]
    assert run("train_on_folder.py", *TINY, *short) == 0
    assert len(list((tmp_path / "discs").glob("*.png"))) == 500
    manifest = Repository(tmp_path / "model-repository").bundle("discs").manifest
    assert manifest.dataset.num_images == 500
    assert (manifest.image.width, manifest.image.channels) == (16, 3)
    (tmp_path / "mine").mkdir()
    assert run("train_on_folder.py", "--images", "mine", *TINY, *short) != 0  # no image in it


def test_resume_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("resume_training.py", "--kimg", "0.064", *TINY) == 0
    out = capsys.readouterr().out
    assert "from 0.064 kimg: optim_G.lr 0.001 -> 0.0005" in out
    assert [int(line.split()[0]) for line in out.splitlines() if " images  loss G " in line] == [
        *(32, 64, 96, 128)
    ]
    (run_folder,) = (tmp_path / "runs").iterdir()
    assert json.loads((run_folder / "config.json").read_text())["training"]["total_kimg"] == 0.128


def test_evaluate_model(
    make_bundle: Callable[..., Bundle], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Repository(tmp_path / "model-repository").publish("noisy", make_bundle(size=8))
    few = ["--num-images", "100", "--features", "random", "--data.dataset", "digits"]
    assert run("evaluate_model.py", "noisy", *few) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "noisy version 1"
    shares = {line.split()[0]: float(line.split()[2].rstrip("%")) for line in lines[1:]}
    assert shares.keys() == {"frechet_distance", "precision", "recall", "coverage"}
    assert all(share < 90 for share in shares.values())  # a linear generator is no good
    assert run("evaluate_model.py", "absent") != 0


def test_digit_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("digit_files.py", "photos") == 0
    folder = tmp_path / "photos"
    assert sorted(path.name for path in folder.iterdir()) == list("0123456789")
    assert len(list(folder.rglob("*.png"))) == 1797 + 2
    with Image.open(folder / "0" / "0000.png") as picture:
        assert (picture.size, picture.mode) == ((32, 32), "L")
        assert picture.getextrema()[1] > 200
    assert (folder / "0" / "copy.png").read_bytes() == (folder / "0" / "0000.png").read_bytes()
    assert run("digit_files.py", "photos") == 1
    assert "error: photos exists" in capsys.readouterr().out
