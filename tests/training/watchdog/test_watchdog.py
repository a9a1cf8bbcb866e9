"""The watchdog on whole trainings: it looks without touching, stops, rescues, and resumes."""

import errno
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from models.repository import Repository
from training.cli.command import parse
from training.engine.checkpoint import Checkpoints
from training.engine.distributed import World
from training.errors import ConfigError, NonFiniteError, UnsavedError, WatchdogError
from training.run import main
from training.runs import trainer
from training.runs.disk import room
from training.runs.journal import Journal
from training.watchdog.detectors import DETECTORS

TINY = ["--data.resolution", "16", "--network.ngf", "4", "--network.ndf", "4", "--batch-size", "16"]
LONG = ["--total-kimg", "0.192", "--tick-kimg", "0.064", "--evaluation", "none"]
RUN = Path("runs") / "00000-digits"


def train(folder: Path, *words: str) -> int:
    places = ["--runs", str(folder / "runs"), "--repository", str(folder / "models")]
    return main(["digits", *TINY, *LONG, *places, *words])


def end(folder: Path) -> dict[str, Any]:
    return Checkpoints(folder / RUN / "checkpoints").latest().content


def flat(content: Any) -> list[Any]:
    if isinstance(content, dict):
        return [item for key, value in content.items() for item in [key, *flat(value)]]
    if isinstance(content, (list, tuple)):
        return [item for value in content for item in flat(value)]
    return [content.numpy().tobytes() if isinstance(content, torch.Tensor) else content]


def read(folder: Path, name: str) -> Any:
    def refuse(word: str) -> NoReturn:
        raise AssertionError(f"{word} is no JSON")

    return json.loads((folder / RUN / name).read_text(), parse_constant=refuse)


EXPLODING = ("--optim-D.lr", "1", "--watchdog.action", "rescue")


def test_an_exploding_lr_is_rescued_to_a_published_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path, *EXPLODING) == 0
    log = (tmp_path / RUN / "log.txt").read_text()
    before, action = (
        log.index("divergence at 0.064 kimg"),
        log.index("rescue 1 of 3: back to 0.000"),
    )
    assert before < action < log.index("Published digits version 1")
    assert "--optim-D.lr 1 -> 0.1" in log
    record = read(tmp_path, "config.json")
    assert record["training"]["optim_D"]["lr"] == 0.1
    assert end(tmp_path)["config"]["optim_D"]["lr"] == 0.1
    assert record["rescues"] == read(tmp_path, "watchdog.json")["rescues"]
    assert [rescue["failure"] for rescue in record["rescues"]] == ["divergence"]
    manifest = Repository(tmp_path / "models").bundle("digits").manifest
    assert "--optim-D.lr 1 -> 0.1" in manifest.options["rescues"][0]
    lines = (tmp_path / RUN / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["cur_nimg"] for line in lines] == [64, 128, 192]
    assert json.loads(lines[0])["watch.spread"] >= 0


def test_a_rescue_that_a_full_disk_stops_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_journal: Journal, _cur_nimg: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(room, "WAIT_S", 0.0)
        patch.setattr(Journal, "rewind", full)
        assert train(tmp_path, *EXPLODING) == UnsavedError.exit_code
    assert "a rescue can't be written: [Errno 28]" in capsys.readouterr().err
    assert main(["--resume", str(tmp_path / RUN)]) == 0
    assert len(read(tmp_path, "config.json")["rescues"]) == 1
    lines = (tmp_path / RUN / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["cur_nimg"] for line in lines] == [64, 128, 192]


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize(
    ("moment", "named"),
    [
        ("before config.json", True),
        ("before the next checkpoint", True),
        ("before the next checkpoint", False),
    ],
)
def test_killed_in_a_rescue_it_ends_as_if_nothing_had_happened(
    tmp_path: Path, moment: str, named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train(whole, *EXPLODING) == 0
    write, save = trainer.write_config, Checkpoints.save

    def no_config(folder: Path, command: Any) -> None:
        raise Killed

    def no_checkpoint(self: Checkpoints, state: Any, *given: Any, **more: Any) -> Path:
        if state.cur_nimg == 64:
            raise Killed
        return save(self, state, *given, **more)

    if moment == "before config.json":
        monkeypatch.setattr(trainer, "write_config", no_config)
    else:
        monkeypatch.setattr(Checkpoints, "save", no_checkpoint)
    with pytest.raises(Killed):
        train(killed, *EXPLODING)
    monkeypatch.setattr(trainer, "write_config", write)
    monkeypatch.setattr(Checkpoints, "save", save)
    num_rescues = len(read(killed, "config.json")["rescues"])
    assert num_rescues == (moment != "before config.json")
    # A restarted pod has the arguments of the first: --resume auto knows its run all the same.
    words = ["--resume", str(killed / RUN)]
    assert (main(words) if named else train(killed, *EXPLODING, "--resume", "auto")) == 0
    assert len(read(killed, "config.json")["rescues"]) == 1
    assert flat(end(killed)) == flat(end(whole))
    models = [folder / "models" / "digits" / "1" / "model.onnx" for folder in (killed, whole)]
    assert models[0].read_bytes() == models[1].read_bytes()


def test_rescues_are_bounded_and_what_is_not_finite_keeps_its_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--optim-D.lr", "1e30", "--watchdog.action", "rescue", "--watchdog.max-rescues", "2"]
    assert train(tmp_path, *words) == NonFiniteError.exit_code == 5
    assert "is not finite in tick 1" in capsys.readouterr().err
    assert 'data-state="divergence"' in (tmp_path / RUN / "report.html").read_text()
    found = read(tmp_path, "watchdog.json")
    assert {each["value"] for each in found["alarms"]} == {None}
    assert found["not_finite"]["alarms.0.value"] == "infinity"
    record = read(tmp_path, "config.json")
    assert [rescue["remedy"] for rescue in record["rescues"]] == ["lower-lr", "lower-lr-of-both"]
    assert record["training"]["optim_D"]["lr"] == pytest.approx(1e28)
    # A new process counts on: the bound is the run's.
    assert main(["--resume", str(tmp_path / RUN)]) == 5
    assert len(read(tmp_path, "config.json")["rescues"]) == 2


def test_stop_ends_with_its_own_code_and_publishes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--optim-D.lr", "1", "--watchdog.action", "stop"]
    assert train(tmp_path, *words) == WatchdogError.exit_code == 10
    message = capsys.readouterr().err
    assert "divergence at 0.064 kimg" in message
    assert "lower --optim-D.lr" in message
    first = tmp_path / RUN / "checkpoints" / "checkpoint-0000000000.pt"
    assert f"Checkpoint from before it: {first}" in message
    assert Checkpoints(first.parent).paths() == [first]
    assert not (tmp_path / "models").exists()
    (alarm,) = read(tmp_path, "watchdog.json")["alarms"]
    assert (alarm["failure"], alarm["cur_nimg"], alarm["player"]) == ("divergence", 64, "D")


def test_warn_says_it_once_and_goes_on_to_the_weights_of_an_unwatched_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = {}
    for action in ("warn", "off"):
        assert train(tmp_path / action, "--optim-D.lr", "1", "--watchdog.action", action) == 0
        says = "watchdog: divergence at 0.064 kimg" in capsys.readouterr().out
        assert says == (action == "warn")
        content = end(tmp_path / action)
        ends[action] = flat([content[name] for name in ("G", "D", "G_ema", "optim_G", "optim_D")])
    assert ends["warn"] == ends["off"]
    assert [v["cur_nimg"] for v in end(tmp_path / "warn")["history"]] == [64, 128, 192]
    assert end(tmp_path / "off")["history"] == []
    assert not (tmp_path / "off" / RUN / "watchdog.json").exists()


def test_the_last_good_checkpoint_stays_while_a_sign_is_pending(tmp_path: Path) -> None:
    """A stopped G is an alarm at the second tick that shows it, the third of the training."""
    words = ["--optim-G.lr", "1e-30", "--watchdog.action", "rescue", "--watchdog.max-rescues", "1"]
    assert train(tmp_path, *words) == WatchdogError.exit_code
    (rescue,) = read(tmp_path, "config.json")["rescues"]
    assert (rescue["failure"], rescue["cur_nimg"], rescue["to_nimg"]) == ("vanishing", 192, 64)
    assert rescue["change"] == "--regularizers r1=0.3 r2=0.3 -> r1=3 r2=3"


def test_a_rescue_without_a_checkpoint_from_before_starts_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not from a later one: the weights in it are those of the failure."""
    words = ["--optim-G.lr", "1e-30", "--watchdog.action", "rescue", "--watchdog.max-rescues", "1"]
    monkeypatch.setattr(trainer.Trainer, "_good_checkpoint", lambda *_: None)
    assert train(tmp_path, *words) == WatchdogError.exit_code
    (rescue,) = read(tmp_path, "config.json")["rescues"]
    assert (rescue["cur_nimg"], rescue["to_nimg"]) == (192, 0)
    lines = (tmp_path / RUN / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["cur_nimg"] == 64


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--watchdog.action", "pray"], "watchdog.action"),
        (["--watchdog.max-rescues", "-1"], "watchdog.max_rescues is -1, allowed: 0 or more"),
        (["--watchdog.ignore", "hunger"], "watchdog.ignore is 'hunger', allowed: divergence"),
    ],
)
def test_options_that_are_none_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert train(tmp_path, *words) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_several_processes_are_not_rescued() -> None:
    config = parse(["digits", "--watchdog.action", "rescue"]).config
    with pytest.raises(ConfigError, match=r"'rescue', allowed: off, warn, stop with processes=2"):
        World(size=2).check(config)
    World().check(config)


def test_a_rescue_measures_the_weight_at_the_checkpoint_that_it_goes_back_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A detector that fires from the second tick on: before the first, Adam has no moments."""
    fires = replace(DETECTORS["collapse"], threshold=1e9, window=1, warm_up=0.4, after_nimg=0)
    monkeypatch.setitem(DETECTORS, "collapse", fires)
    words = [
        "--watchdog.action",
        "rescue",
        "--watchdog.advice",
        "measured",
        "--data.no-conditional",
    ]
    measure = trainer.Trainer._damping_weights

    def elsewhere(self: trainer.Trainer, path: Path | None) -> dict[str, float]:
        """As with a GPU: neither its images nor its networks are for an instrument on the CPU."""
        with monkeypatch.context() as patch:
            patch.setattr(self, "image_set", replace(self.image_set, place=torch.device("meta")))
            patch.setattr(self, "fresh", None)
            return measure(self, path)

    monkeypatch.setattr(trainer.Trainer, "_damping_weights", elsewhere)
    train(tmp_path, *words, "--watchdog.max-rescues", "1", "--regularizers", "r1=0.01")
    log = (tmp_path / RUN / "log.txt").read_text()
    measured = re.search(r"measured at checkpoint-0000000064.pt, critical damping: (\S+)", log)
    assert measured is not None
    (rescue,) = read(tmp_path, "config.json")["rescues"]
    weight = "r1=0.1" if measured[1] == "none" else measured[1]
    assert rescue["change"] == f"--regularizers r1=0.01 -> {weight}"


def test_a_rescue_of_what_has_a_schedule_changes_it_where_the_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fires = replace(DETECTORS["collapse"], threshold=1e9, window=1, warm_up=0.4, after_nimg=0)
    monkeypatch.setitem(DETECTORS, "collapse", fires)
    words = ["--watchdog.action", "rescue", "--watchdog.max-rescues", "1"]
    train(tmp_path, *words, "--regularizers", "r1=0.1", "--schedules", "r1=0.05@0.032")
    (rescue,) = read(tmp_path, "config.json")["rescues"]
    assert rescue["to_nimg"] == 64
    assert rescue["change"].endswith("so at 0.064 kimg r1 0.05 -> 0.5")
    assert "so at 0.064 kimg r1 0.05 -> 0.5" in (tmp_path / RUN / "log.txt").read_text()


def test_a_failed_measurement_says_why_and_raises_tenfold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_given: Any) -> None:
        raise TypeError("can't convert a tensor of the device")

    fires = replace(DETECTORS["collapse"], threshold=1e9, window=1, warm_up=0.0, after_nimg=0)
    monkeypatch.setitem(DETECTORS, "collapse", fires)
    monkeypatch.setattr(trainer, "critical_weights", fails)
    words = ["--watchdog.action", "rescue", "--watchdog.advice", "measured"]
    train(tmp_path, *words, "--watchdog.max-rescues", "1", "--regularizers", "r1=0.01")
    log = (tmp_path / RUN / "log.txt").read_text()
    assert "it is raised tenfold: TypeError: can't convert a tensor of the device" in log
    (rescue,) = read(tmp_path, "config.json")["rescues"]
    assert rescue["change"] == "--regularizers r1=0.01 -> r1=0.1"
