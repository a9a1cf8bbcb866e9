"""A disk that is full and a terminal that is gone: the training outlives both, and says so."""

import errno
import io
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from models.repository import Repository
from tests.faults.small_disk import fill, small_disk
from tests.training.runs.test_survival import code_of, start
from training.engine.checkpoint import Checkpoints
from training.errors import RecordsError, UnsavedError
from training.run import main
from training.runs.disk import records, room
from training.runs.disk.records import RecordFile, RunFiles
from training.runs.disk.room import is_full, with_room
from training.runs.ending.film import FILM
from training.runs.interruption import InterruptedRun, Interruption
from training.runs.journal import Journal
from training.stdout import LastingStream

pytestmark = pytest.mark.filterwarnings("ignore:This process")  # of fork() beside threads
MEANS = {"loss_D.a": 1.0, "loss_G.a": 1.0, "scores.real": 1.0, "scores.fake": 0.0}
TINY = ["--data.resolution", "16", "--network.ngf", "4", "--network.ndf", "4", "--batch-size", "16"]
LENGTH = ["--total-kimg", "0.096", "--tick-kimg", "0.032", "--evaluation", "none"]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", size_kb=256) as folder:
        yield folder


def test_what_a_full_disk_refuses_is_written_when_there_is_room(disk: Path) -> None:
    file, files = RecordFile(disk / "log"), RunFiles()
    filler = fill(disk)
    lines = [f"{number} {'x' * 3000}\n".encode() for number in range(4)]
    for line in lines:
        file.append(line)
    files.write(disk / "grids" / "a.png", b"a" * 5000)
    files.write(disk / "grids" / "b.png", b"b" * 5000)
    assert file.error is not None
    assert file.error.errno == errno.ENOSPC
    assert {path.name for path in files.errors} == {"a.png", "b.png"}
    assert not list(disk.glob("grids/*"))
    filler.unlink()
    file.append(b"after\n")
    assert file.error is None
    assert (disk / "log").read_bytes() == b"".join(lines) + b"after\n"
    assert files.flush()
    assert {path.read_bytes() for path in disk.glob("grids/*")} == {b"a" * 5000, b"b" * 5000}
    file.close()


def test_a_journal_on_a_full_disk_loses_no_tick(disk: Path) -> None:
    stream = io.StringIO()
    journal = Journal(disk, stream, cur_nimg=0, total_nimg=9000)
    journal.tick(1, 1000, MEANS)
    filler = fill(disk)
    for tick in range(2, 8):
        journal.tick(tick, tick * 1000, {f"{name}{'x' * 500}": 1.0 for name in "abcd"} | MEANS)
    assert any("metrics.jsonl: No space left" in line for line in journal.unwritten())
    assert stream.getvalue().count("warning: not written yet") == 1
    filler.unlink()
    journal.tick(8, 8000, MEANS)
    assert journal.unwritten() == []
    journal.close()
    assert stream.getvalue().count("what could not be written is written now") == 1
    ticks = [json.loads(line)["tick"] for line in (disk / "metrics.jsonl").read_text().splitlines()]
    assert ticks == list(range(1, 9))
    assert (disk / "log.txt").read_text().count("kimg ") == 8
    scalars = EventAccumulator(str(disk / "events")).Reload().Scalars("scores/real")
    assert [event.step for event in scalars] == [tick * 1000 for tick in ticks]


def test_a_full_disk_does_not_cut_off_the_metrics_of_a_resumed_run(disk: Path) -> None:
    journal = Journal(disk, io.StringIO(), cur_nimg=0, total_nimg=9000)
    for tick in (1, 2, 3):
        journal.tick(tick, tick * 1000, {"x" * 2000: 1.0} | MEANS)
    journal.close()
    before = (disk / "metrics.jsonl").read_bytes()
    fill(disk)
    with pytest.raises(OSError, match="No space left"):
        Journal(disk, io.StringIO(), cur_nimg=2000, total_nimg=9000)
    assert (disk / "metrics.jsonl").read_bytes() == before


def test_a_rescue_waits_for_room_to_rewind_the_metrics(disk: Path) -> None:
    journal = Journal(disk, io.StringIO(), cur_nimg=0, total_nimg=9000)
    for tick in (1, 2, 3):
        journal.tick(tick, tick * 1000, {"x" * 2000: 1.0} | MEANS)
    filler = fill(disk)
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        filler.unlink()

    with_room(lambda: journal.rewind(2000), "the rescue", Interruption(), say)
    journal.tick(3, 3000, MEANS)
    journal.close()
    assert "waiting up to 600 s for room for the rescue" in said[0]
    lines = [json.loads(line) for line in (disk / "metrics.jsonl").read_text().splitlines()]
    assert [line["tick"] for line in lines] == [1, 2, 3]
    assert "x" * 2000 not in lines[2]


def test_what_is_too_much_to_keep_is_told_to_be_lost(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "_MOST_BYTES", 8000)
    stream = io.StringIO()
    journal = Journal(disk, stream, cur_nimg=0, total_nimg=9000, trackers=())
    filler = fill(disk)
    for name in ("a.png", "b.png", "c.png"):
        journal.files.write(disk / "grids" / name, name.encode() * 600)
    for tick in (1, 2, 3):
        journal.tick(tick, tick * 1000, {"x" * 5000: 1.0} | MEANS)
    filler.unlink()
    lines = journal.unwritten()
    assert [line.partition(": lost")[0] for line in lines] == [
        *(str(disk / "metrics.jsonl"), *(str(disk / "grids" / name) for name in ("a.png",)))
    ]
    assert "what was kept is written now; lost: " in stream.getvalue()
    journal.files.write(disk / "grids" / "a.png", b"a")
    assert len(journal.unwritten()) == 1
    journal.close()


def arguments(folder: Path, *more: str) -> list[str]:
    places = ["--runs", str(folder / "runs"), "--repository", str(folder / "models")]
    return ["digits", *TINY, *LENGTH, *places, *more]


def full_from(step: int, disk: Path) -> Any:
    """A fit in whose n-th step the disk becomes full."""
    from training.runs.trainer import fit

    def filling(stepper: Any, hooks: Any) -> bool:
        one, count = stepper.step, 0

        def counted() -> None:
            nonlocal count
            count += 1
            if count == step:
                fill(disk)
            one()

        stepper.step = counted
        return fit(stepper, hooks)

    return filling


def test_a_training_on_a_full_disk_goes_on_and_waits_for_room_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_disk(tmp_path / "disk", size_kb=4096) as disk:
        monkeypatch.setattr("training.runs.trainer.fit", full_from(3, disk))
        # The warning that it waits is what makes the room.
        write = LastingStream.write

        def watched(stream: LastingStream, text: str) -> int:
            if "waiting up to" in text:
                (disk / "filler").unlink()
            return write(stream, text)

        monkeypatch.setattr(LastingStream, "write", watched)
        assert main(arguments(disk)) == 0
        said = capsys.readouterr().out
        for tick in (2, 3):
            assert f"warning: tick {tick} was not saved: [Errno 28] No space left" in said
        assert "waiting up to 600 s for room for the checkpoint" in said
        run = disk / "runs" / "00000-digits"
        assert Checkpoints(run / "checkpoints").latest().cur_nimg == 96
        assert len((run / "metrics.jsonl").read_text().splitlines()) == 3
        assert len(list((run / "samples").glob("samples*.png"))) == 4
        assert Repository(disk / "models").versions("digits") == [1]


def test_a_disk_that_stays_full_is_told_by_the_exit_code_and_resumed_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(room, "WAIT_S", 0.0)
    with small_disk(tmp_path / "disk", size_kb=4096) as disk:
        with monkeypatch.context() as patch:
            patch.setattr("training.runs.trainer.fit", full_from(3, disk))
            assert main(arguments(disk, "--resume", "auto")) == UnsavedError.exit_code == 12
        assert "make room, then --resume" in capsys.readouterr().err
        run = disk / "runs" / "00000-digits"
        assert not (run / "ended.txt").exists()
        (disk / "filler").unlink()
        assert main(arguments(disk, "--resume", "auto")) == 0
        assert "resumed at 0.032 kimg" in capsys.readouterr().out
        assert [path.name for path in (disk / "runs").iterdir()] == [run.name]


def test_a_checkpoint_makes_room_for_itself_by_the_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk with room for two: without the older one gone the training would be lost."""
    with small_disk(tmp_path / "disk", size_kb=4096) as disk:
        arguments_ = arguments(disk)
        arguments_[arguments_.index("--repository") + 1] = str(tmp_path / "models")
        from training.runs.trainer import fit

        def tight(stepper: Any, hooks: Any) -> bool:
            one, count = stepper.step, 0

            def counted() -> None:
                nonlocal count
                count += 1
                if count == 5:  # both of the first ticks are saved
                    size = max(path.stat().st_size for path in disk.rglob("*.pt"))
                    filler = fill(disk)
                    os.truncate(filler, filler.stat().st_size - size // 2)
                one()

            stepper.step = counted
            return fit(stepper, hooks)

        monkeypatch.setattr("training.runs.trainer.fit", tight)
        monkeypatch.setattr(room, "WAIT_S", 0.0)
        main(arguments_)
        names = sorted(path.name for path in disk.rglob("checkpoint-*.pt"))
        assert names == ["checkpoint-0000000064.pt", "checkpoint-0000000096.pt"]


def test_a_signal_on_a_full_disk_says_that_the_state_is_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    num_signals = iter([1])

    def full(*given: Any, **named: Any) -> Path:
        for _ in num_signals:  # once: a second one would end this process
            signal.raise_signal(signal.SIGTERM)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Checkpoints, "save", full)
    assert main(arguments(tmp_path)) == UnsavedError.exit_code
    assert "the state was not saved: [Errno 28]" in capsys.readouterr().err


def test_a_published_model_with_a_missing_grid_is_told_by_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = records._write

    def full(path: Path, content: bytes) -> None:
        if path.name == "samples.png":
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(path, content)

    monkeypatch.setattr(records, "_write", full)
    assert main(arguments(tmp_path)) == RecordsError.exit_code == 13
    error = capsys.readouterr().err
    assert "samples.png: No space left on device" in error
    assert Repository(tmp_path / "models").versions("digits") == [1]


def test_a_film_that_a_full_disk_refused_is_written_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, num_tries = records._write, 0

    def full_once(path: Path, content: bytes) -> None:
        nonlocal num_tries
        num_tries += path.name == FILM
        if path.name == FILM and num_tries == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(path, content)

    monkeypatch.setattr(records, "_write", full_once)
    assert main(arguments(tmp_path)) == 0
    assert "The training as a film" not in capsys.readouterr().out
    with Image.open(tmp_path / "runs" / "00000-digits" / "samples" / FILM) as film:
        assert film.format == "WEBP"


def test_what_waits_for_room_ends_by_a_signal() -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    interruption = Interruption()
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM))
    with interruption.handled(), interruption.deferred():
        timer.start()
        with pytest.raises(InterruptedRun):
            with_room(full, "it", interruption, lambda _: None)
    timer.join()


def test_only_a_full_disk_is_waited_for() -> None:
    assert is_full(OSError(errno.ENOSPC, ""))
    assert is_full(OSError(errno.EDQUOT, ""))
    assert not is_full(OSError(errno.EACCES, ""))
    wrapped = RuntimeError()
    wrapped.__cause__ = OSError(errno.ENOSPC, "")
    assert is_full(wrapped)


def test_a_training_whose_output_nobody_reads_any_more_loses_nothing(tmp_path: Path) -> None:
    """As with `| head -1`: by SIGPIPE's errno, at the first line."""

    def closed() -> None:
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, 1)

    pid = start(tmp_path / "log", arguments(tmp_path), closed)
    assert code_of(pid) == 0
    run = tmp_path / "runs" / "00000-digits"
    assert "Published digits version 1" in (run / "log.txt").read_text()
    assert len(list((run / "samples").glob("samples*.png"))) == 4
    assert (tmp_path / "log").read_text() == ""


def test_a_lasting_stream_writes_on_when_its_disk_has_room_again(disk: Path) -> None:
    filler = fill(disk)
    with (disk / "out").open("w") as file:
        stream = LastingStream(file)
        stream.write("lost\n" * 2000)
        stream.flush()
        filler.unlink()
        stream.write("kept\n")
        stream.flush()
        assert (disk / "out").read_text() == "kept\n"
    closed = LastingStream(file)
    closed.write("x")
    closed.flush()
    assert not closed.isatty()
    none = LastingStream(None)
    none.write("x")
    none.flush()
    assert not none.isatty()
