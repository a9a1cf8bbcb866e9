"""`--resume auto`: what a job that is started again until its work is done goes on with."""

import io
import json
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from models.repository import Repository
from training.cli.command import CONFIG, Command, parse
from training.data import load
from training.data.config import EARLIER
from training.engine.checkpoint import Checkpoints
from training.engine.distributed import World
from training.engine.state import State
from training.run import main
from training.runs.folders import as_rescued, claim, continue_unfinished, mark_ended

TINY = ["--data.resolution", "16", "--network.ngf", "4", "--network.ndf", "4", "--batch-size", "16"]


def arguments(folder: Path, *words: str) -> list[str]:
    places = ["--runs", str(folder / "runs"), "--repository", str(folder / "models")]
    length = ["--total-kimg", "0.064", "--tick-kimg", "0.032"]
    return ["digits", *TINY, *length, *places, "--resume", "auto", *words]


class EvictedAtFirstTick(io.StringIO):
    """A standard output at whose first line of metrics the process is told to end."""

    def write(self, text: str) -> int:
        if text.startswith("kimg 0.0") and self.getvalue().count("\nkimg") == 0:
            super().write("\n")
            signal.raise_signal(signal.SIGTERM)
        return super().write(text)


@pytest.fixture(scope="module")
def evicted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that SIGTERM ended after its first tick."""
    folder = tmp_path_factory.mktemp("evicted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", EvictedAtFirstTick())
        assert main(arguments(folder)) == 128 + signal.SIGTERM
    assert not (folder / "models").exists()
    return folder


@pytest.fixture
def folder(evicted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, seen under the same name, as that is one of the run's options."""
    copy = tmp_path / "evicted"
    shutil.copytree(evicted, copy)
    config = copy / "runs/00000-digits/config.json"
    config.write_text(config.read_text().replace(str(evicted), str(copy)))
    return copy


def offered(command: Command) -> tuple[Path, int] | None:
    """The run that is gone on with, and where."""
    images = load(command.config.data)
    state = State.fresh(command.config, images.shape, command.device(World()))
    found = continue_unfinished(command, state, images, io.StringIO())
    if found is None:
        return None
    run, lock, _ = found
    lock.close()
    return run, state.cur_nimg


def test_the_next_pod_goes_on_and_the_one_after_starts_anew(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(folder)) == 0
    said = capsys.readouterr().out
    assert "resumed at 0.048 kimg" in said
    assert "Published digits version 1" in said
    assert [run.name for run in (folder / "runs").iterdir()] == ["00000-digits"]
    assert main(arguments(folder)) == 0
    assert sorted(run.name for run in (folder / "runs").iterdir()) == [
        "00000-digits",
        "00001-digits",
    ]
    assert Repository(folder / "models").versions("digits") == [1, 2]


def test_only_a_run_with_the_same_options_is_gone_on_with(folder: Path) -> None:
    run = folder / "runs/00000-digits"
    assert offered(parse(arguments(folder))) == (run, 48)
    for words in (["--seed", "1"], ["--name", "other"], ["--total-kimg", "0.128"]):
        assert offered(parse(arguments(folder, *words))) is None


def test_a_run_that_ended_or_is_being_trained_is_left_alone(folder: Path) -> None:
    command, run = parse(arguments(folder)), folder / "runs/00000-digits"
    with claim(run):
        assert offered(command) is None
    assert offered(command) == (run, 48)
    mark_ended(run, "refused")
    assert offered(command) is None


def test_two_processes_never_train_one_run(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = folder / "runs/00000-digits"
    with claim(run):
        assert main(["--resume", str(run)]) == 4
    assert "another process is training" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_stumbled_over_once(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = folder / "runs/00000-digits"
    Checkpoints(run / "checkpoints").paths()[-1].write_bytes(b"torn")
    assert main(arguments(folder)) == 0
    said = capsys.readouterr().out
    assert "can't be continued" in said
    assert "Published digits version 1" in said
    assert (folder / "runs/00001-digits").exists()
    assert "is damaged, or no checkpoint" in (run / "ended.txt").read_text()


@pytest.mark.parametrize("option", ["runs", "repository"])
def test_a_volume_that_cannot_be_written_is_said_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    words = arguments(tmp_path, f"--{option}", str(file / "below"))
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {option} is {str(file / 'below')!r}")
    assert "mount it writable" in said
    assert list(tmp_path.iterdir()) == [file]


def test_a_run_of_an_earlier_release_goes_on_with_its_order_of_classes(tmp_path: Path) -> None:
    for i, name in enumerate(("1", "2", "10", "train")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for j in range(8):
            picture = Image.new("RGB", (16, 16), (60 * i, 20 * j, 99))
            picture.save(tmp_path / "photos" / name / f"{j}.png")
    words = ["folder", "--data.path", str(tmp_path / "photos"), "--data.conditional", *TINY]
    words += ["--total-kimg", "0.032", "--tick-kimg", "0.016", "--evaluation", "none"]
    words += ["--runs", str(tmp_path / "runs"), "--repository", str(tmp_path / "models")]
    assert main([*words, "--data.class-order", "text", "--data.labels", "none"]) == 0
    # What an earlier release wrote lacks the options that it didn't know.
    run = tmp_path / "runs/00000-folder"
    record = json.loads((run / CONFIG).read_text())
    for name in EARLIER:
        del record["training"]["data"][name]
    (run / CONFIG).write_text(json.dumps(record))
    checkpoint = Checkpoints(run / "checkpoints").paths()[0]
    content = torch.load(checkpoint, weights_only=True)
    for name in EARLIER:
        del content["config"]["data"][name]
    torch.save(content, checkpoint)
    for other in Checkpoints(run / "checkpoints").paths()[1:]:
        other.unlink()
    (run / "ended.txt").unlink()
    command = as_rescued(parse([*words, "--resume", "auto"]))
    assert command.config.data.class_order == "text"
    assert load(command.config.data).label_names == ("1", "10", "2", "train")
    assert offered(command) == (run, 16)
    # An option that was given makes it another run, which numbers classes naturally.
    other = as_rescued(parse([*words, "--resume", "auto", "--data.split", "all"]))
    assert load(other.config.data).label_names == ("1", "2", "10", "train")
    assert offered(other) is None
