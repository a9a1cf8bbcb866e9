import errno
import json
import re
import signal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from models.bundle import Bundle, write_bundle
from models.bundle.generator import CpuGenerator
from models.bundle.manifest import Metric
from models.latents import latents
from models.repository import Repository
from training.engine.checkpoint import Checkpoints, read
from training.errors import CheckpointError, ExportError, GateError, PublishError
from training.export.manifest_options import public_options
from training.recipes import RECIPES
from training.run import main
from training.runs.ending.film import grids
from training.runs.folders import new_run_folder
from training.runs.interruption import InterruptedRun, Interruption

TINY = ["--data.resolution", "16", "--network.ngf", "4", "--network.ndf", "4", "--batch-size", "16"]


def arguments(tmp_path: Path, *words: str) -> list[str]:
    places = ["--runs", str(tmp_path / "runs"), "--repository", str(tmp_path / "models")]
    return ["digits", *TINY, "--total-kimg", "0.064", "--tick-kimg", "0.032", *places, *words]


def test_from_nothing_to_a_published_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sounded = ("--stability-kimg", "0.016")
    assert main(arguments(tmp_path, "--name", "mine", "--seed", "3", *sounded)) == 0
    run = tmp_path / "runs" / "00000-digits"
    bundle = Repository(tmp_path / "models").bundle("mine")
    assert bundle.manifest.recipe == "digits"
    assert bundle.manifest.options["seed"] == 3
    figures = {metric.name for metric in bundle.manifest.metrics}
    assert figures >= {"frechet_distance", "coverage", "memorised", "label_agreement"}
    assert json.loads((run / "config.json").read_text())["training"]["seed"] == 3
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    assert list((run / "events").iterdir())
    said = capsys.readouterr().out
    assert "Published mine version 1" in said
    # Figures are printed with what a reader needs: direction, interval, ends, features.
    header = next(line for line in said.splitlines() if line.startswith("figure "))
    assert header.split()[-2:] == ["real", "noise"]
    coverage = next(line for line in said.splitlines() if line.startswith("coverage "))
    assert len(coverage.split()) == 8
    assert "; features random: " in said
    assert "Published mine version 1" in (run / "log.txt").read_text()
    assert json.loads((run / "config.json").read_text())["stability_kimg"] == 0.016
    # How it went, with the state that it ended in.
    report = (run / "report.html").read_text()
    assert 'data-state="' in report
    assert "Published mine version 1" in report
    assert "Nearest real images" in report
    # The last grid is what will be served, byte for byte.
    last = max((run / "samples").glob("*.png"))
    step = np.asarray(Image.open(last))
    seed = 57
    image = CpuGenerator(bundle.model_path)(
        latents([seed], bundle.manifest.z_dim), np.array([seed % 10])
    )
    row, column = divmod(seed, 10)
    tile = step[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16]
    assert np.array_equal(tile, image[0, :, :, 0])

    # Resumed after its end, it exports and publishes again; a repository that can't be is said.
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "mine").write_text("a file where the model's folder would be")
    words = ["--resume", str(run), "--repository", str(blocked)]
    assert main(words) == PublishError.exit_code
    assert str(blocked) in capsys.readouterr().err


def test_dry_run_and_list_start_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(tmp_path, "--dry-run")) == 0
    assert json.loads(capsys.readouterr().out)["training"]["batch_size"] == 16
    assert main(arguments(tmp_path, "--list")) == 0
    assert "article" in capsys.readouterr().out
    assert main(arguments(tmp_path, "--list", "--short")) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["RECIPE", "DATA", "KIMG"]
    assert [line.split()[0] for line in lines] == list(RECIPES)
    assert main(arguments(tmp_path, "--short")) == 2
    assert "short is True, allowed: beside --list" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["progressive", "--data.resolution", "48"], 2, "resolution is 48"),
        (["mnist", "--data.resolution", "48"], 2, "resolution is 48"),
        (["digits", "--network", "mlp"], 2, "takes no labels"),
        (["digits", "--device", "tpu"], 2, "device is 'tpu'"),
        (["digits", "--device", "cuda:99"], 2, "device is 'cuda:99'"),
        (["digits", "--frozen-D", "99"], 2, "frozen_D is 99"),
        (["digits", "--batch-size", "3", "--accumulate", "3"], 2, "accumulate is 3"),
        (["digits", "--gate", "fid<=5"], 2, "fid is not going to be measured"),
        (["folder", "--data.path", "nowhere"], 3, "data.path is nowhere"),
        (["digits", "--init-from", "nowhere"], 4, "init_from is 'nowhere'"),
    ],
)
def test_a_dry_run_checks_all_that_needs_no_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, says: str
) -> None:
    places = ["--runs", str(tmp_path / "runs"), "--repository", str(tmp_path / "models")]
    assert main([*words, *places, "--dry-run"]) == code
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_needs_no_download(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["cifar10", "--data.path", str(tmp_path / "data"), "--runs", str(tmp_path / "runs")]
    words += ["--network.ngf", "4", "--network.ndf", "4", "--compute.compile", "--dry-run"]
    assert main([*words, "--repository", str(tmp_path / "models")]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["training"]["recipe"] == "cifar10"
    assert "note: compute.compile: D is not compiled" in captured.err
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_resumed_otherwise_says_so_and_its_model_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = arguments(tmp_path, "--evaluation", "none")
    assert main(plain) == 0
    run = str(tmp_path / "runs" / "00000-digits")
    dry = ["--resume", run, "--network.ngf", "8", "--dry-run"]
    assert main(dry) == CheckpointError.exit_code
    assert "network.ngf is 8" in capsys.readouterr().err
    assert main(["--resume", run, "--objective", "hinge", "--total-kimg", "0.08"]) == 0
    changes = [
        "from 0.064 kimg: objective non-saturating -> hinge",
        "from 0.064 kimg: total_kimg 0.064 -> 0.08",
    ]
    output = capsys.readouterr().out
    assert all(line in output for line in changes)
    assert Repository(tmp_path / "models").bundle("digits").manifest.options["changes"] == changes


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--total-kimg", "0"], 2, "total_kimg is 0.0"),
        (["--network", "mlp"], 2, "takes no labels"),
        (["--data.dataset", "folder", "--data.path", "nowhere"], 3, "data.path is nowhere"),
        (["--resume", "nowhere"], 4, "resume is 'nowhere'"),
    ],
)
def test_a_mistake_ends_with_its_exit_code_before_a_run_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, says: str
) -> None:
    if "mlp" in words:
        words = [*words, "--runs", str(tmp_path / "runs")]
    else:
        words = arguments(tmp_path, *words)
    assert main(words) == code
    assert says in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_runs_are_numbered(tmp_path: Path) -> None:
    assert new_run_folder(tmp_path / "runs", "a").name == "00000-a"
    (tmp_path / "runs" / "00041-b").mkdir()
    (tmp_path / "runs" / "notes").mkdir()
    assert new_run_folder(tmp_path / "runs", "a").name == "00042-a"


def test_a_signal_ends_at_once_or_is_remembered() -> None:
    old = signal.getsignal(signal.SIGTERM)
    with Interruption().handled() as interruption, interruption.deferred():
        signal.raise_signal(signal.SIGTERM)
        assert interruption.signal is signal.SIGTERM
    with Interruption().handled(), pytest.raises(InterruptedRun):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is old


def test_a_full_disk_is_said_and_training_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Checkpoints.save
    num_calls = 0

    def full_once(*given: Any, **named: Any) -> Path:
        nonlocal num_calls
        num_calls += 1
        if num_calls == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(*given, **named)

    def no_export(**given: object) -> None:
        raise ExportError("not wanted here")

    monkeypatch.setattr(Checkpoints, "save", full_once)
    monkeypatch.setattr("training.runs.ending.model.export", no_export)
    assert main(arguments(tmp_path)) == ExportError.exit_code
    assert "warning: tick 1 was not saved" in capsys.readouterr().out
    paths = Checkpoints(tmp_path / "runs" / "00000-digits" / "checkpoints").paths()
    assert [path.name for path in paths] == ["checkpoint-0000000064.pt"]


def test_a_bundle_does_not_tell_where_its_images_lay() -> None:
    options = {"data": {"dataset": "folder", "path": "/home/somebody/photos"}, "seed": 0}
    public = public_options(options)
    assert public == {"data": {"dataset": "folder", "path": "photos"}, "seed": 0}
    assert options["data"] == {"dataset": "folder", "path": "/home/somebody/photos"}
    weights = public_options({"data": {"weights": ["a/b=2", "/home/somebody/w.csv"]}})["data"][
        "weights"
    ]
    assert weights == ["a/b=2", "w.csv"]


def test_a_gate_keeps_a_model_out_of_the_repository(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--name", "mine", "--gate", "label_agreement>=0", "--gate", "not-worse"]
    assert main(arguments(tmp_path, *words)) == 0
    assert "there is no CURRENT to be worse than" in capsys.readouterr().out
    repository = Repository(tmp_path / "models")
    run = tmp_path / "runs" / "00000-digits"

    # The very same model again is not worse; the gates come from the run's own record.
    assert main(["--resume", str(run)]) == 0
    assert "of CURRENT (mine version 1)" in capsys.readouterr().out
    assert repository.current("mine").version == 2

    words = ["--resume", str(run), "--gate", "coverage>=0.999"]
    assert main(words) == GateError.exit_code == 8
    message = capsys.readouterr().err
    assert "coverage is 0" in message
    assert "must be >= 0.999" in message
    assert str(run / "bundle") in message
    assert repository.versions("mine") == [1, 2]
    assert Bundle.open(run / "bundle").manifest.metrics


def test_a_gate_that_could_never_be_judged_is_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(arguments(tmp_path, "--evaluation", "none")) == 0
    monkeypatch.setattr("training.runs.pipeline.Pipeline.run", lambda _: pytest.fail("began"))
    assert main(arguments(tmp_path, "--gate", "not-worse:coverage")) == 2
    error = capsys.readouterr().err
    assert "CURRENT (digits version 1) has no figure coverage: none at all" in error
    # Nor was it measured on other images, or on others of the same.
    published = Repository(tmp_path / "models").bundle("digits")
    protocol = {"n": 898, "data": "digits, sha256 0, split 0"}
    old = Metric(name="coverage", value=0.5, protocol=protocol)
    manifest = msgspec.structs.replace(published.manifest, metrics=(old,))
    files = {name: (published.path / name).read_bytes() for name in manifest.files}
    Repository(tmp_path / "models").publish("digits", write_bundle(tmp_path / "b", manifest, files))
    assert main(arguments(tmp_path, "--gate", "not-worse:coverage")) == 2
    error = capsys.readouterr().err
    assert "CURRENT (digits version 2) was measured differently" in error
    assert "'digits, sha256 0, split 0' there" in error
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["00000-digits"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--gate", "beauty>=1"], "there is no figure 'beauty'"),
        (["--gate", "coverage"], "gate is 'coverage', allowed: FIGURE>=NUMBER"),
        (["--gate", "fid<=5"], "fid is not going to be measured, only frechet_distance"),
        (["--gate", "coverage>=0", "--evaluation", "none"], "only nothing"),
        (["--gate", "modes>=9", "--network", "mlp", "--data.no-conditional"], "modes is not going"),
    ],
)
def test_a_gate_on_what_is_not_measured_is_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    places = ["--runs", str(tmp_path / "runs"), "--repository", str(tmp_path / "models")]
    assert main(["digits", *places, *words]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_without_an_evaluation_there_are_no_figures(tmp_path: Path) -> None:
    assert main(arguments(tmp_path, "--evaluation", "none")) == 0
    assert Repository(tmp_path / "models").bundle("digits").manifest.metrics == ()


def losses(run: Path) -> list[dict[str, float]]:
    """The metrics of each tick without the looks' figures and the speed."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {
            name: value
            for name, value in record.items()
            if not name.startswith("quality.") and name != "nimg_per_s"
        }
        for record in records
    ]


def test_looks_choose_what_is_exported_and_change_no_loss(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    length = ["--total-kimg", "0.16", "--ema-kimg", "0", "--optim-G.lr", "0.2"]
    with_looks = [*length, "--evaluate-kimg", "0.032", "--select", "recall", "--keep", "best,last"]
    assert main(arguments(tmp_path, *with_looks, "--evaluation", "none")) == 0
    said = capsys.readouterr().out
    run = tmp_path / "runs" / "00000-digits"
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    looks = {record["cur_nimg"]: record["quality.recall"] for record in records}
    assert len(looks) == 5
    best = max(looks, key=lambda number: (looks[number], -number))
    assert f"select=recall: recall {looks[best]:.4g} at {best / 1000:.3f} kimg" in said
    assert "Frechet" in said
    assert "(noise " in said

    # What was exported is what the best look saw: the weights of its checkpoint.
    exported = np.load(run / "bundle" / "weights.npz")
    content = read(Checkpoints(run / "checkpoints").at(best)).content["G_ema"]
    assert all(np.array_equal(exported[name], content[name].numpy()) for name in content)
    selected = Bundle.open(run / "bundle").manifest.options.get("selected")
    assert (selected is None) == (best == 160)
    assert [look["cur_nimg"] for look in Checkpoints(run / "checkpoints").latest().content["looks"]]

    # The grids are in a film, and among TensorBoard's pictures.
    assert (run / "samples" / "training.webp").exists() == (len(grids(run / "samples")) > 1)
    events = EventAccumulator(str(run / "events"), size_guidance={"images": 0}).Reload()
    assert len(events.Images("samples")) == 5
    assert events.Scalars("quality/recall/floor")

    # Neither does a preview, which comes before a first tick that is long in coming.
    assert not (run / "samples" / "preview.png").exists()
    monkeypatch.setattr("training.runs.journal._FIRST_S", 0.0)
    monkeypatch.setattr("training.runs.trainer._PREVIEW_S", 0.0)
    monkeypatch.setattr("training.runs.trainer._LONG_S", 0.0)
    without = [*length, "--evaluate-kimg", "0", "--evaluation", "none", "--track"]
    assert main(arguments(tmp_path / "without", *without)) == 0
    plain = tmp_path / "without" / "runs" / "00000-digits"
    assert losses(plain) == losses(run)
    said = capsys.readouterr().out
    assert "first preview of the images" in said
    assert re.search(r"^this takes \d+s at this speed; Ctrl-C saves", said, re.MULTILINE)
    with Image.open(plain / "samples" / "preview.png") as preview:
        assert preview.size == (160, 160)
    assert not (plain / "events").exists()

    # A look whose checkpoint is gone is not chosen: the best of the others is.
    Checkpoints(run / "checkpoints").at(best).unlink()
    if best != 160:
        assert main(["--resume", str(run)]) == 0
        said = capsys.readouterr().out
        assert f"was at {best / 1000:.3f} kimg, whose checkpoint is not there" in said
        assert "select=recall: recall" in said


def test_a_worse_model_does_not_become_current_in_silence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tmp_path)) == 0
    said = capsys.readouterr().out
    assert "verdict: " in said
    assert "few images (1,797): add --augment.policy diffaugment" in said
    assert "warning: this model is worse" not in said
    published = Repository(tmp_path / "models").bundle("digits")
    manifest = published.manifest
    better = [
        msgspec.structs.replace(
            metric, value=0.0, protocol={**metric.protocol, "interval": [0.0, 1e-9]}
        )
        if metric.name == "frechet_distance"
        else metric
        for metric in manifest.metrics
    ]
    manifest = msgspec.structs.replace(manifest, metrics=tuple(better))
    files = {name: (published.path / name).read_bytes() for name in manifest.files}
    Repository(tmp_path / "models").publish("digits", write_bundle(tmp_path / "b", manifest, files))
    assert main(["--resume", str(tmp_path / "runs" / "00000-digits")]) == 0
    said = capsys.readouterr().out
    assert "warning: this model is worse than version 2 by its own figures" in said
    assert "promote digits 2` serves that one again; --gate not-worse keeps" in said
    assert Repository(tmp_path / "models").current("digits").version == 3


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--keep", "best"], "last is always part of it"),
        (["--select", "best", "--keep", "last"], "add best to --keep"),
        (["--select", "best", "--evaluate-kimg", "0"], "nobody looks at the images"),
        (["--stability-kimg", "-1"], "stability_kimg is -1.0, allowed: a finite number, 0 or more"),
        (["--evaluate-kimg", "-1"], "evaluate_kimg is -1.0, allowed: a finite number, 0 or more"),
        (["--track", "comet"], "track is 'comet', allowed: tensorboard, wandb, mlflow"),
    ],
)
@pytest.mark.parametrize("dry", [False, True])
def test_options_that_can_not_be_met_leave_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str, dry: bool
) -> None:
    assert main(arguments(tmp_path, *words, *(["--dry-run"] if dry else []))) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_files_of_formats_that_can_not_be_read_are_counted_first_with_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {}

    class SeenError(Exception):
        pass

    def batches(image_set: Any, **options: Any) -> None:
        given.update(options)
        raise SeenError

    monkeypatch.setattr("training.runs.trainer.Batches", batches)
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    for i in range(30):
        (tmp_path / "photos" / f"{i}.cr3").write_bytes(b"anything")
    (tmp_path / "photos" / "bad.png").write_bytes(b"")
    words = ["--data.path", str(tmp_path / "photos"), "--data.mirror", *TINY]
    places = ["--runs", str(tmp_path / "runs"), "--repository", str(tmp_path / "models")]
    with pytest.raises(SeenError):
        main(["folder", *words, *places])
    assert given["mirror"] is True
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("warning: 30 files are not used, a camera's raw file can't be read")
    assert lines[2] == "skipped bad.png: an empty file"
    assert sum("raw file can't be read" in line for line in lines) == 1
