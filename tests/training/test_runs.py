"""`--resume auto`: what a job that is started again until its work is done goes on with."""

import io
import shutil
import signal
import sys
from pathlib import Path

import pytest

from models.repository import Repository
from training.checkpoint import Checkpoints
from training.command import Command, parse
from training.data import load
from training.distributed import World
from training.run import main
from training.runs import claim, continue_unfinished, mark_ended
from training.state import State

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
    found = continue_unfinished(command, state, images.fingerprint, io.StringIO())
    if found is None:
        return None
    run, lock = found
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
    assert "can't be read" in (run / "ended.txt").read_text()


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
