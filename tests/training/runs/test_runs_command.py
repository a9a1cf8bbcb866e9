"""The trainings on disk by command: an earlier release's run, and copies of it that differ."""

import fcntl
import json
import os
import shutil
import threading
from pathlib import Path

import msgspec
import pytest
import torch

from models.repository import Repository
from training.engine.checkpoint import Checkpoints
from training.errors import ConfigError, UnsavedError
from training.runs import folders
from training.runs.__main__ import main
from training.runs.catalogue import Run, find_run, run_of_model, runs_in
from training.runs.folders import claim

LEGACY = Path(__file__).parents[2] / "legacy" / "run"
LOOKS = [
    {"cur_nimg": 768, "quality.frechet_distance": 2.0, "quality.coverage": 0.25},
    {"cur_nimg": 1536, "quality.frechet_distance": 0.5, "quality.coverage": 0.75},
]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """00000-digits as it was; 00001-digits with another seed, looks, and published."""
    root = tmp_path / "runs"
    for name in ("00000-digits", "00001-digits"):
        shutil.copytree(LEGACY, root / name)
        (root / name / "ended.txt").unlink(missing_ok=True)
    second = root / "00001-digits"
    record = json.loads((second / "config.json").read_text())
    record["training"]["seed"] = 7
    (second / "config.json").write_text(json.dumps(record))
    (second / "metrics.jsonl").write_text("".join(json.dumps(look) + "\n" for look in LOOKS))
    (second / "ended.txt").write_text("Published legacy version 1 in m\n")
    return root


def test_a_list_of_what_is_there(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--runs", str(runs), "list"]) == 0
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["RUN", "DATA", "KIMG", "FIGURES", "STATE"]
    assert first.startswith("00000-digits  digits")
    assert first.endswith("can be resumed")
    assert "frechet_distance 0.5, coverage 0.75" in second
    assert second.endswith("Published legacy version 1 in m")
    with claim(runs / "00000-digits"):
        assert main(["--runs", str(runs), "list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["runs"]
    assert [run["outcome"] for run in found] == ["running", "Published legacy version 1 in m"]


def test_runs_of_the_same_name_are_told_apart(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = runs.parent / "others" / "00001-digits"
    shutil.copytree(runs / "00001-digits", other)
    words = ["--runs", str(runs), "compare", "1", str(other)]
    assert main(words) == 0
    names = ["runs/00001-digits", "others/00001-digits"]
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["OPTION", *names]
    assert all(f"\n  {name}" in out for name in names)
    assert main([*words, "--json"]) == 0
    assert [run["run"] for run in json.loads(capsys.readouterr().out)["runs"]] == names


def test_a_list_only_reads(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It neither writes, nor keeps a training from beginning at the same moment."""
    lock = runs / "00000-digits" / ".lock"
    lock.touch()
    os.utime(lock, (0, 0))
    with lock.open() as reader:
        assert main(["--runs", str(runs), "list"]) == 0
        assert lock.stat().st_mtime == 0
        fcntl.flock(reader, fcntl.LOCK_SH)
        assert not Run(lock.parent).is_running
        monkeypatch.setattr(folders, "_CLAIM_S", 20.0)  # a reader is waited for
        timer = threading.Timer(0.1, fcntl.flock, (reader, fcntl.LOCK_UN))
        timer.start()
        with claim(lock.parent):
            assert Run(lock.parent).is_running
        timer.join()


def test_what_an_interrupted_deletion_left_is_found_and_removed(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--runs", str(runs)]
    assert main([*words, "delete"]) == 0
    assert "nothing is half deleted" in capsys.readouterr().out
    left = runs / ".deleted-00007-digits"
    (left / "checkpoints").mkdir(parents=True)
    assert main([*words, "list"]) == 0
    assert f"half deleted in {runs}: .deleted-00007-digits" in capsys.readouterr().out
    assert main([*words, "delete", "--dry-run"]) == 0
    assert left.exists()
    assert main([*words, "delete"]) == 0
    assert not left.exists()
    assert len(runs_in(runs)) == 2


def test_runs_are_compared(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--runs", str(runs), "compare", "0", str(runs / "00001-digits")]) == 0
    said = capsys.readouterr().out
    options = [line.split() for line in said.partition("\n\n")[0].splitlines()]
    assert options[0] == ["OPTION", "00000-digits", "00001-digits"]
    (seed,) = options[1:]  # nothing else differs
    assert (seed[0], seed[2]) == ("seed", "7")
    assert "00001-digits  █▁" in said  # the Frechet distance falls
    assert "2 .. 0.5" in said


def test_a_run_is_named_by_folder_name_or_number(runs: Path) -> None:
    for word in ("1", "00001-digits", str(runs / "00001-digits")):
        assert find_run(word, runs).folder.resolve() == (runs / "00001-digits").resolve()
    with pytest.raises(ConfigError, match="newest there: 00000-digits, 00001-digits"):
        find_run("2", runs)


def test_what_was_not_published_or_is_trained_is_not_deleted(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--runs", str(runs), "delete"]
    assert main([*words, "1", "0"]) == 2
    assert "00000-digits was not published (can be resumed)" in capsys.readouterr().err
    assert len(runs_in(runs)) == 2
    with claim(runs / "00000-digits"):
        assert main([*words, "0", "--force"]) == 4
    assert main([*words, "0", "--force", "--dry-run"]) == 0
    assert len(runs_in(runs)) == 2
    assert main([*words, "1"]) == 0
    assert [run.folder.name for run in runs_in(runs)] == ["00000-digits"]
    assert main([*words, "0", "--force"]) == 0
    assert list(runs.iterdir()) == []


def test_a_run_is_deleted_once_and_nothing_is_left(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs / "00001-digits"
    left = runs / ".deleted-00001-digits"
    left.mkdir()
    (left / "x").touch()
    words = ["--runs", str(runs), "delete", "1"]
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refuses)
        assert main(words) == UnsavedError.exit_code
    assert f"what is left is in {left}" in capsys.readouterr().err
    (runs / "link").symlink_to(run)
    assert main([*words, "00001-digits", str(run), str(runs / "link")]) == 0
    assert capsys.readouterr().out.count("deleted ") == 1
    assert not run.exists()
    assert not left.exists()


def refuses(_folder: Path) -> None:
    raise PermissionError("not yours")


def test_a_folder_of_another_program_is_no_run(runs: Path) -> None:
    (runs / "model").mkdir()
    (runs / "model" / "config.json").write_text('{"architectures": []}')
    with pytest.raises(ConfigError, match="RUN is 'model'"):
        find_run("model", runs)


def test_a_run_that_failed_to_publish_is_published_by_export(runs: Path, tmp_path: Path) -> None:
    """So that it may be deleted; one that can be resumed stays so."""
    words = ["--repository", str(tmp_path / "models"), "--evaluation", "none"]
    (runs / "00001-digits" / "ended.txt").write_text("error: a gate failed\n")
    for number in (0, 1):
        assert main(["--runs", str(runs), "export", str(number), *words]) == 0
    assert [run.is_published for run in runs_in(runs)] == [False, True]
    assert runs_in(runs)[0].outcome == "can be resumed"
    assert main(["--runs", str(runs), "delete", "1"]) == 0


def test_a_checkpoint_is_published_by_command(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(runs / "00001-digits")
    newest = run.checkpoints[-1]
    assert run.checkpoint("last") == run.checkpoint("best") == newest
    record = json.loads((run.folder / "config.json").read_text())
    places = {"before": "", "remedy": "r1", "change": "r1 1 -> 2", "cur_nimg": newest + 9}
    record["rescues"] = [
        places | {"failure": failure, "to_nimg": to_nimg}
        for failure, to_nimg in (("collapse", 0), ("stall", newest))
    ]
    (run.folder / "config.json").write_text(json.dumps(record))
    file = Checkpoints(run.folder / "checkpoints").at(newest)
    torch.save(
        torch.load(file, weights_only=True) | {"changes": ["from 0 kimg: seed 6 -> 7"]}, file
    )
    words = ["--runs", str(runs), "export", "1", "--evaluation", "none"]
    assert main([*words, "--checkpoint", "77"]) == 4
    assert f"one of these kimg: {newest / 1000:g}" in capsys.readouterr().err
    assert main([*words, "--checkpoint", str(newest / 1000), "--name", "a b"]) == 2
    places = ["--repository", str(tmp_path / "models"), "--name", "earlier"]
    assert main([*words, "--checkpoint", "best", *places]) == 0
    assert "Published earlier version 1" in capsys.readouterr().out
    published = Repository(tmp_path / "models").bundle("earlier")
    published.verify_files()
    options = published.manifest.options
    assert options["selected"] == [f"checkpoint at {newest / 1000:.3f} kimg"]
    assert options["changes"] == ["from 0 kimg: seed 6 -> 7"]
    (rescue,) = options["rescues"]  # what came after this checkpoint didn't make it
    assert rescue.startswith("collapse at ")
    assert run.outcome == "Published legacy version 1 in m"  # the run's own end stays


def test_a_models_run_is_found(runs: Path, make_bundle) -> None:
    bundle = make_bundle()
    assert run_of_model(bundle.manifest, bundle.path, runs) is None
    inside = runs / "00001-digits" / "bundle"
    shutil.copytree(bundle.path, inside)
    for path in (inside, bundle.path):  # beside its bundle, and by the same bundle in --runs
        found = run_of_model(bundle.manifest, path, runs)
        assert found is not None
        assert found.folder.name == "00001-digits"
    dataset = msgspec.structs.replace(bundle.manifest.dataset, fingerprint="other")
    other = msgspec.structs.replace(bundle.manifest, created="2027", dataset=dataset)
    assert run_of_model(other, bundle.path, runs) is None
