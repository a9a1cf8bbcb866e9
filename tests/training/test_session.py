import errno
import json
import signal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from models.bundle import Bundle, write_bundle
from models.generator import CpuGenerator
from models.latents import latents
from models.manifest import Metric
from models.repository import Repository
from training.checkpoint import Checkpoints
from training.errors import CheckpointError, ExportError, GateError, PublishError
from training.interruption import InterruptedRun, Interruption
from training.run import main
from training.runs import new_run_folder
from training.session import _public

TINY = ["--data.resolution", "16", "--network.ngf", "4", "--network.ndf", "4", "--batch-size", "16"]


def arguments(tmp_path: Path, *words: str) -> list[str]:
    places = ["--runs", str(tmp_path / "runs"), "--repository", str(tmp_path / "models")]
    return ["digits", *TINY, "--total-kimg", "0.064", "--tick-kimg", "0.032", *places, *words]


def test_from_nothing_to_a_published_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tmp_path, "--name", "mine", "--seed", "3")) == 0
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
    # Figures are told as they must be read: with direction, interval, floor, ceiling, features.
    header = next(line for line in said.splitlines() if line.startswith("figure "))
    assert header.endswith("95% interval  floor (real)  ceiling (noise)")
    coverage = next(line for line in said.splitlines() if line.startswith("coverage "))
    assert len(coverage.split()) == 8
    assert "; features random: " in said
    assert "Published mine version 1" in (run / "log.txt").read_text()
    # The last grid is what will be served, byte for byte.
    last = max((run / "samples").glob("*.png"))
    board = np.asarray(Image.open(last))
    seed = 57
    image = CpuGenerator(bundle.model_path)(
        latents([seed], bundle.manifest.z_dim), np.array([seed % 10])
    )
    row, column = divmod(seed, 10)
    tile = board[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16]
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
    told = [
        "from 0.064 kimg: objective non-saturating -> hinge",
        "from 0.064 kimg: total_kimg 0.064 -> 0.08",
    ]
    output = capsys.readouterr().out
    assert all(line in output for line in told)
    assert Repository(tmp_path / "models").bundle("digits").manifest.options["changes"] == told


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
    with Interruption().handled() as interruption:
        with interruption.deferred():
            signal.raise_signal(signal.SIGTERM)
            assert interruption.signal is signal.SIGTERM
        with pytest.raises(InterruptedRun):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is old


def test_a_full_disk_is_said_and_training_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Checkpoints.save
    num_calls = 0

    def full_once(*given: Any) -> Path:
        nonlocal num_calls
        num_calls += 1
        if num_calls == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(*given)

    def no_export(**given: object) -> None:
        raise ExportError("not wanted here")

    monkeypatch.setattr(Checkpoints, "save", full_once)
    monkeypatch.setattr("training.session.export", no_export)
    assert main(arguments(tmp_path)) == ExportError.exit_code
    assert "warning: tick 1 was not saved" in capsys.readouterr().out
    paths = Checkpoints(tmp_path / "runs" / "00000-digits" / "checkpoints").paths()
    assert [path.name for path in paths] == ["checkpoint-0000000064.pt"]


def test_a_bundle_does_not_tell_where_its_images_lay() -> None:
    options = {"data": {"dataset": "folder", "path": "/home/somebody/photos"}, "seed": 0}
    public = _public(options)
    assert public == {"data": {"dataset": "folder", "path": "photos"}, "seed": 0}
    assert options["data"] == {"dataset": "folder", "path": "/home/somebody/photos"}
    weights = _public({"data": {"weights": ["a/b=2", "/home/somebody/w.csv"]}})["data"]["weights"]
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
    monkeypatch.setattr("training.session.Session.run", lambda _: pytest.fail("began"))
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
