import json
import subprocess
import sys
from pathlib import Path

import pytest

from models.cli import main
from models.repository import Current, Repository


@pytest.fixture
def repository(tmp_path, grey, classes):
    repository = Repository(tmp_path / "repository")
    for _ in range(2):
        repository.publish("grey", grey)
    repository.publish("classes", classes)
    return repository


@pytest.fixture
def run(repository, capsys):
    """Runs a command; gives the exit code, what it printed and what it complained of."""

    def run(*arguments):
        capsys.readouterr()
        try:
            code = main(["--repository", str(repository.root), *arguments])
        except SystemExit as error:  # argparse
            code = error.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_list(run, repository):
    repository.pin("grey", 1)
    code, out, err = run("list")
    rows = [line.split()[:3] for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert rows[1:] == [
        ["classes", "1", "current"],
        ["grey", "1", "pinned"],
        ["grey", "2", "2026-01-01T00:00:00+00:00"],
    ]
    assert "classes" not in run("list", "grey")[1]


def test_list_goes_on_after_a_bundle_that_can_not_be_read(run, repository):
    (repository.root / "grey" / "1" / "manifest.json").write_bytes(b"{")
    code, out, _ = run("list")
    assert code == 0
    assert "refused: " in out
    assert len(out.splitlines()) == 4


def test_show(run, repository):
    code, out, _ = run("show", "grey")
    heading, _, body = out.partition("\n")
    bundle = repository.bundle("grey", 2)
    assert code == 0
    assert heading == f"{bundle.path} sha256 {bundle.digest}"
    assert json.loads(body)["version"] == 2
    assert json.loads(run("show", "grey", "1")[1].partition("\n")[2])["version"] == 1


def test_verify_all_one_or_one_version(run):
    code, out, _ = run("verify")
    assert code == 0
    assert out.splitlines() == [
        "classes/1 ok, golden images within 0/255",
        "grey/1 ok, golden images within 0/255",
        "grey/2 ok, golden images within 0/255",
    ]
    assert len(run("verify", "grey")[1].splitlines()) == 2
    assert run("verify", "grey", "2")[1] == "grey/2 ok, golden images within 0/255\n"


def test_verify_names_what_is_damaged_and_goes_on(run, repository):
    (repository.root / "grey" / "1" / "card.md").write_bytes(b"altered")
    code, out, err = run("verify")
    assert code == 4
    assert err.startswith("grey/1 refused: ")
    assert "publish the model again" in err
    assert "grey/2 ok" in out


def test_verify_makes_the_golden_images(run, repository, spoil, make_bundle):
    copy = spoil()
    copy.write("golden.npz", make_bundle(weights_seed=99).golden.to_bytes())
    repository.publish("other", copy.open())
    code, _, err = run("verify", "other")
    assert code == 4
    assert "golden images differ" in err


def test_verify_refuses_a_model_that_can_not_be_loaded(run, repository, spoil):
    copy = spoil()
    copy.write("model.onnx", b"no model")
    repository.publish("other", copy.open())
    code, _, err = run("verify", "other")
    assert code == 4
    assert "other/1 refused: " in err


def test_promote_pin_rollback(run, repository):
    assert run("promote", "grey", "1") == (0, "grey: 1\n", "")
    assert repository.current("grey") == Current(1)
    assert run("pin", "grey") == (0, "grey: 1 pinned\n", "")
    assert run("pin", "grey", "2") == (0, "grey: 2 pinned\n", "")
    assert run("rollback", "grey") == (0, "grey: 1\n", "")
    assert repository.current("grey") == Current(1)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["show", "nothing"], 3, "error: model 'nothing' is not in"),
        (["list", "nothing"], 3, "it holds: classes, grey"),
        (["verify", "grey", "9"], 3, "no version 9"),
        (["promote", "grey", "9"], 3, "it holds: 1, 2"),
        (["rollback", "classes"], 3, "has no version before 1"),
        (["promote", "grey", "latest"], 2, "'latest' is no version: versions are 1, 2, 3"),
        (["promote", "grey", "0"], 2, "'0' is no version"),
        (["promote", "grey"], 2, "required: VERSION"),
        (["show", "../grey"], 1, "is not allowed"),
        ([], 2, "required: COMMAND"),
        (["delete", "grey"], 2, "invalid choice: 'delete'"),
    ],
)
def test_what_can_not_be_done_is_said(run, arguments, code, message):
    found, out, err = run(*arguments)
    assert found == code
    assert message in err
    assert out == ""


def test_an_empty_repository(capsys, tmp_path):
    assert main(["--repository", str(tmp_path / "none"), "list"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "--repository DIR, or publish one with `python -m training.run`" in captured.err


def test_as_a_module(repository):
    command = [sys.executable, "-m", "models.repository", "--repository", str(repository.root)]
    result = subprocess.run(
        [*command, "verify"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count(" ok, ") == 3
    missing = subprocess.run(
        [*command, "show", "x"], cwd=Path(__file__).parents[2], capture_output=True, check=False
    )
    assert missing.returncode == 3
