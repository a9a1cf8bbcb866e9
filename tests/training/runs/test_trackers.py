import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.errors import ConfigError
from training.runs import trackers
from training.runs.journal import Journal
from training.runs.trackers import TensorBoard, Tracked, Trackers, check

MEANS = {"loss_D.adversarial": 1.25, "scores.real": 0.5, "scores.fake": 0.25}
PICTURE = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))


class Recorder:
    """A tracker that remembers what it was given."""

    def __init__(self, run: Tracked) -> None:
        self.run = run
        self.calls: list[tuple[object, ...]] = []

    def scalars(self, values: Mapping[str, float], cur_nimg: int) -> None:
        self.calls.append(("scalars", dict(values), cur_nimg))

    def image(self, name: str, picture: Image.Image, cur_nimg: int) -> None:
        self.calls.append(("image", name, picture.size, cur_nimg))

    def rewind(self, cur_nimg: int) -> None:
        self.calls.append(("rewind", cur_nimg))

    def close(self) -> None:
        self.calls.append(("close",))


class Broken(Recorder):
    def scalars(self, values: Mapping[str, float], cur_nimg: int) -> None:
        raise ConnectionError("no route to host\nand more")


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    found: list[Recorder] = []

    def opens(kind: type[Recorder]) -> object:
        def make(run: Tracked) -> Recorder:
            found.append(kind(run))
            return found[-1]

        return make

    for name, kind in (("recorder", Recorder), ("broken", Broken)):
        monkeypatch.setitem(trackers.TRACKERS, name, opens(kind))
        monkeypatch.setitem(trackers._NEEDS, name, "json")
    return found


def test_every_tracker_gets_what_the_journal_gets(
    tmp_path: Path, recorders: list[Recorder]
) -> None:
    stream = io.StringIO()
    journal = Journal(
        tmp_path,
        stream,
        cur_nimg=64,
        total_nimg=1000,
        trackers=["broken", "recorder"],
        options={"seed": 3},
    )
    for tick in (1, 2):
        journal.tick(tick, 100 * tick, MEANS)
    journal.picture("samples", PICTURE, 200)
    journal.rewind(100)
    journal.close()
    broken, recorder = recorders
    assert (recorder.run.options, recorder.run.cur_nimg) == ({"seed": 3}, 64)
    kinds = [call[0] for call in recorder.calls]
    assert kinds == ["scalars", "scalars", "image", "rewind", "close"]
    _, values, cur_nimg = recorder.calls[1]
    assert isinstance(values, dict)
    assert (values["loss_D/adversarial"], cur_nimg) == (1.25, 200)
    assert recorder.calls[2] == ("image", "samples", (8, 8), 200)
    # One that fails costs the others nothing, is said once, and what it lacks is said at the end.
    assert [call[0] for call in broken.calls] == ["close"]
    said = stream.getvalue()
    assert said.count("broken fails, the training goes on and tries again: no route to host\n") == 1
    assert "warning: broken lacks 4 of this run's ticks and pictures: no route to host;" in said
    assert not (tmp_path / "events").exists()


def test_what_a_tracker_missed_comes_later_in_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    class Away(Recorder):
        def rewind(self, cur_nimg: int) -> None:
            if is_away:
                raise OSError(28, "No space left on device")
            super().rewind(cur_nimg)

    is_away, said = True, list[str]()
    away = Away(Tracked(folder=Path(), options={}, cur_nimg=0))
    opened = Trackers({"away": away}, said.append)
    opened.rewind(100)
    for cur_nimg in (200, 300):
        opened.scalars({"a.b": 1.0}, cur_nimg)
    assert away.calls == []
    is_away = False
    opened.image("samples", PICTURE, 300)
    opened.close()
    assert [(call[0], call[-1]) for call in away.calls[:-1]] == [
        ("rewind", 100),
        ("scalars", 200),
        ("scalars", 300),
        ("image", 300),
    ]
    assert len(said) == 1

    monkeypatch.setattr(trackers, "_MOST_WAITING", 3)
    is_away = True
    later = Trackers({"away": away}, said.append)
    later.rewind(400)
    for cur_nimg in (500, 600, 700):
        later.scalars({}, cur_nimg)
    is_away = False
    later.close()
    assert said[-1].startswith("warning: away lacks 1 of this run's ticks and pictures: ")
    assert [call[-1] for call in away.calls[-4:-1]] == [500, 600, 700]


def test_tensorboard_has_the_grids_as_pictures(tmp_path: Path) -> None:
    tracker = TensorBoard(Tracked(folder=tmp_path, options={}, cur_nimg=0))
    tracker.scalars({"quality/coverage": 0.5}, 128)
    tracker.image("samples", PICTURE, 128)
    tracker.image("samples", PICTURE.convert("RGB"), 256)
    tracker.close()
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    assert events.Scalars("quality/coverage")[0].value == 0.5
    grey, rgb = events.Images("samples")
    assert (grey.step, rgb.step) == (128, 256)
    assert Image.open(io.BytesIO(grey.encoded_image_string)).size == (8, 8)


def test_an_unknown_or_missing_tracker_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="track is 'comet', allowed: tensorboard, wandb, mlflow"):
        check(["tensorboard", "comet"])
    monkeypatch.setitem(trackers._NEEDS, "wandb", "no_such_package")
    with pytest.raises(ConfigError, match=r"needs the package no_such_package.*extra wandb"):
        check(["wandb"])


def test_one_that_can_not_be_started_is_refused_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(_run: Tracked) -> Recorder:
        raise RuntimeError("no API key")

    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", refuses)
    run = Tracked(folder=tmp_path, options={}, cur_nimg=0)
    with pytest.raises(ConfigError, match="can't be started: no API key"):
        Trackers.open(["tensorboard"], run, say=print)


def test_weights_and_biases_gets_a_run_that_can_be_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for _ in range(2):  # as a run that is resumed
        run = Tracked(folder=tmp_path, options={"seed": 3, "data": {"path": "x"}}, cur_nimg=0)
        tracker = trackers.WeightsAndBiases(run)
        tracker.scalars({"quality/coverage": 0.5}, 128)
        tracker.image("samples", PICTURE, 128)
        tracker.rewind(64)
        tracker.scalars({"quality/coverage": 0.4}, 100)  # earlier than what it has
        tracker.close()
    number = (tmp_path / "wandb.id").read_text().strip()
    files = list((tmp_path / "wandb").glob(f"offline-run-*-{number}/run-{number}.wandb"))
    assert any(b"quality/coverage" in file.read_bytes() for file in files)
    assert list((tmp_path / "wandb").rglob("media/images/*.png"))


def test_mlflow_gets_curves_pictures_and_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    options = {"seed": 3, "data": {"dataset": "digits"}} | {f"o{n}": n for n in range(150)}
    for value in (0.5, 0.6):  # as a run that is resumed
        tracker = trackers.MLflow(Tracked(folder=tmp_path, options=options, cur_nimg=0))
        tracker.scalars({"quality/coverage": value}, round(value * 1000))
        tracker.image("samples", PICTURE, 128)
        tracker.close()
    client = MlflowClient()
    experiment = client.get_experiment_by_name("saddlepoint")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.data.params["data.dataset"], run.data.params["o149"]) == ("digits", "149")
    curve = client.get_metric_history(run.info.run_id, "quality/coverage")
    assert [(point.step, point.value) for point in curve] == [(500, 0.5), (600, 0.6)]
    assert client.list_artifacts(run.info.run_id, "images")
    assert run.info.status == "FINISHED"
    json.dumps(run.data.params)
