"""`python -m serving.client` on a real server, and docs/using-the-api.md as it stands."""

import io
import json
import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.repository import Repository
from serving.client.__main__ import main
from tests.conftest import ServerProcess, free_port, server_process
from tests.real_images import FULL
from tests.serving.client.peers import message, models, peer, says

ROOT = Path(__file__).parents[3]


@pytest.fixture
def run(server: Any, tmp_path: Path) -> Callable[..., int]:
    """Runs a command in this process."""

    def go(*arguments: object) -> int:
        return main(["--url", server.url, *map(str, arguments)])

    return go


GREY = ("--model", "grey")


def opened(path: Path) -> Any:
    return Image.open(io.BytesIO(path.read_bytes()))


def test_images_become_files(run: Callable[..., int], tmp_path: Path, server: Any) -> None:
    grid, npy, folder = tmp_path / "grid.png", tmp_path / "a.npy", tmp_path / "new" / "folder"
    assert run("generate", "--seeds", "1-4", "--grid", grid, *GREY) == 0
    assert opened(grid).size == (16, 16)
    assert run("generate", "--seeds", "1-4,9", "--npy", npy, *GREY) == 0
    assert np.load(npy).shape == (5, 8, 8, 1)
    assert run("generate", "--seeds", "7,8", "--out", folder, *GREY) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["7.png", "8.png"]
    body = server.generate(model="grey", seeds=[7]).content
    shown = np.asarray(Image.open(io.BytesIO(body)))
    assert (np.asarray(opened(folder / "7.png")) == shown).all()


@pytest.mark.parametrize(("suffix", "kind"), [("webp", "WEBP"), ("gif", "GIF"), ("png", "PNG")])
def test_a_walk_becomes_a_file(
    run: Callable[..., int], tmp_path: Path, suffix: str, kind: str
) -> None:
    out = tmp_path / f"walk.{suffix}"
    wanted = ("--seeds", "1,2", "--frames", 4, "--model", "colour", "--label", 1)
    assert run("interpolate", *wanted, "--out", out) == 0
    image = opened(out)
    assert image.format == kind
    assert getattr(image, "n_frames", 1) == (1 if kind == "PNG" else 4)


def test_a_file_in_the_way_stays(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.npy"
    out.write_text("mine")
    assert run("generate", "--seeds", "1", "--npy", out, *GREY) == 1
    assert "exists; choose another name, or add --force" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert run("generate", "--seeds", "1", "--npy", out, "--force", *GREY) == 0
    assert np.load(out).shape == (1, 8, 8, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_models_are_listed(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("models") == 0
    table = capsys.readouterr().out
    assert re.search(r"^colour +1 +1 +16x16 RGB +3 ", table, re.M)
    assert run("models", "--json") == 0
    assert {model["name"] for model in json.loads(capsys.readouterr().out)} == {"grey", "colour"}


def test_a_load_test_counts_what_was_answered(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ("load", "--connections", 4, "--duration", 0.5, *GREY)
    assert run(*wanted, "--progress") == 0
    shown = capsys.readouterr()
    assert "p99_ms" in shown.out
    assert re.search(r"up to .* ms .*#", shown.out)
    assert "responses" in shown.err
    assert run(*wanted, "--json", "--seeds-per-request", 3) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["requests"] > 0
    assert figures["images_per_s"] == pytest.approx(3 * figures["requests_per_s"], rel=0.01)
    assert figures["p50_ms"] <= figures["p99_ms"] <= figures["max_ms"]
    assert run("load", "--duration", 0.2, "--model", "nix", "--json") == 1
    assert set(json.loads(capsys.readouterr().out)["failures"]) == {"404"}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["generate", "--seeds", "1", "--model", "nix", "--npy", "x"], 3, "404 There is no such"),
        (["generate", "--seeds", "1", "--model", "grey", "--labels", "1", "--npy", "x"], 3, "none"),
        (["generate", "--seeds", "1", *GREY, "--npy", "/dev/null/x"], 1, "File exists"),
        (["generate", "--seeds", "1-3", "--labels", "1,2", "--npy", "x"], 2, "has 2 entries"),
        (["generate", "--seeds", "1,2,1", "--out", "x"], 2, "names 1.png 2 times"),
        (["generate", "--seeds", "1,1", "--labels", "3", "--out", "x"], 2, "names 1.png 2 times"),
        (
            ["generate", "--seeds", "1,2,1", "--labels", "0,1,0", "--out", "x"],
            2,
            "name 1-label0.png 2 times, always the same image; leave out all but one",
        ),
    ],
)
def test_a_refusal_is_told_in_words(
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    assert run(*arguments) == code
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--url", "http://[::1", "models"], "--url: the URL is 'http://[::1', must be like"),
        (["--url", "http://127.0.0.1:99999", "load"], "--url: the URL is"),
        (["--url", "127.0.0.1:8000", "models"], "--url: the URL is"),
        (["--timeout-s", "-1", "models"], "--timeout-s: '-1' is not a number > 0"),
        (["--timeout-s", "nan", "models"], "--timeout-s: 'nan' is not a finite number"),
        (["--timeout-s", "soon", "models"], "--timeout-s: 'soon' is not a finite number"),
        (["--api-key-file", "none", "models"], "No such file or directory: 'none'"),
        (
            ["--api-key-file", "foreign.key", "models"],
            "in foreign.key: the API key must be",
        ),
        (["--api-key-file", "binary.key", "load"], "binary.key is not a text file"),
        (
            ["--api-key-file", "empty.key", "load"],
            "in empty.key: the API key must be one or more visible",
        ),
        (["generate", "--seeds", "1", "--truncation", "nan", "--npy", "x"], "--truncation: 'nan'"),
        (
            ["generate", "--seeds", "1", "--labels", "a", "--npy", "x"],
            "--labels: 'a' is not a list",
        ),
        (["interpolate", "--seeds", "1,2", "--out", "w.mp4"], "must end in .webp, .gif or .png"),
        (["interpolate", "--seeds", "1,2", "--out", "webp"], "must end in .webp, .gif or .png"),
        (["interpolate", "--seeds", "1,2", "--fps", "inf", "--out", "w.gif"], "--fps: 'inf'"),
        (["load", "--duration", "nan"], "--duration: 'nan'"),
        (["load", "--duration", "0"], "--duration: '0' is not a number > 0"),
        (["load", "--connections", "0"], "--connections: '0' is not a whole number in 1 .. 100000"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_asked(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("foreign.key").write_text("schlüssel", encoding="utf-8")
    Path("binary.key").write_bytes(b"\xff\xfe")
    Path("empty.key").write_text("\n")
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert words in said
    assert "schlüssel" not in said


def test_an_answer_of_something_else_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    portal = says(message(200, b"<html>", content_type="text/html"))
    out = tmp_path / "walk.webp"
    with peer(says(models()), again=portal) as other:
        command = ["--url", other.url, "interpolate", "--seeds", "1,2", "--out", str(out)]
        assert main(command) == 3
    assert "error (200): the response is 'text/html', not an image" in capsys.readouterr().err
    assert not out.exists()


def test_a_seed_of_several_classes_is_several_files(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ("generate", "--model", "colour", "--out", tmp_path)
    assert run(*wanted, "--seeds", "1,1,2", "--labels", "0,2,2") == 0
    assert "3 images" in capsys.readouterr().out
    names = ["1-label0.png", "1-label2.png", "2-label2.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    pixels = [np.asarray(opened(tmp_path / name)) for name in names]
    assert (pixels[0] != pixels[1]).any()
    assert run(*wanted, "--seeds", "1,2", "--labels", "2") == 0
    assert (np.asarray(opened(tmp_path / "1.png")) == pixels[1]).all()
    assert (np.asarray(opened(tmp_path / "2.png")) == pixels[2]).all()


def test_nobody_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert main(["--url", url, "--timeout-s", "0.2", "models"]) == 4
    assert "no response from the server" in capsys.readouterr().err
    assert main(["--url", url, "load", "--duration", "0.1"]) == 4
    assert "can't connect to" in capsys.readouterr().err


def test_seeds_that_cannot_be_read_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["generate", "--seeds=5-2", "--npy", "x"])
    assert ended.value.code == 2
    assert "argument --seeds: '5-2' is a range" in capsys.readouterr().err


@pytest.fixture(scope="module")
def digits(
    make_bundle: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """What the documentation talks to: a conditional model of ten classes beside another."""
    root, jobs = tmp_path_factory.mktemp("digits"), tmp_path_factory.mktemp("jobs")
    Repository(root).publish("digits", make_bundle(num_classes=10, directions=True, encoder=FULL))
    Repository(root).publish("photos", make_bundle())
    flags = ("--jobs-folder", str(jobs))
    with server_process(root, tmp_path_factory.mktemp("log"), *flags) as running:
        yield running


def blocks(language: str) -> list[str]:
    text = (ROOT / "docs" / "using-the-api.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


def test_the_documented_commands_work(digits: Any, tmp_path: Path) -> None:
    # All others run in tests/pages.
    lines = [line for block in blocks("sh") for line in block.splitlines() if " client " in line]
    assert len(lines) >= 6
    for line in lines:
        program, name, *rest = shlex.split(line)
        assert (program, name) == (".venv/bin/saddlepoint", "client")
        command = [sys.executable, "-m", "saddlepoint", name, "--url", digits.url, *rest]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, f"{line}\n{ran.stderr}"
    assert len(list((tmp_path / "digits").iterdir())) == 4
    assert opened(tmp_path / "walk.webp").n_frames == 30


def test_the_documented_python_works(
    digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    for code in blocks("python"):
        exec(code.replace("http://127.0.0.1:8000", digits.url), scope)
    assert scope["images"].shape == (2000, 8, 8, 1)
    assert "400 urn:saddlepoint:problem:invalid-request labels is 99" in capsys.readouterr().out
    assert len(scope["filled"].images) == 3
    assert len(zipfile.ZipFile(tmp_path / "sevens.zip").namelist()) == 500
