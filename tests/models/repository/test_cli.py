import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from models.bundle.manifest import Metric, encode
from models.repository import Current, Repository
from models.repository.__main__ import main
from models.repository.candidate import Candidate


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


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (
            ["precision", "coverage", "vendi", "frechet_distance", "modes", "label_agreement"],
            "coverage 0.1, frechet_distance 0.3, label_agreement 0.5",
        ),
        (["a", "b", "c", "d"], "a 0, b 0.1, c 0.2"),
    ],
)
def test_a_row_shows_three_figures_and_json_all(run, repository, grey, names, shown):
    metrics = tuple(
        Metric(name=name, value=index / 10, protocol={}) for index, name in enumerate(names)
    )
    measured = repository.publish("measured", grey)
    file = measured.path / "manifest.json"
    file.write_bytes(encode(msgspec.structs.replace(measured.manifest, metrics=metrics)))
    row = run("list", "measured")[1].splitlines()[1]
    assert row.endswith(f" {shown}")
    (found,) = json.loads(run("list", "measured", "--json")[1])["models"][0]["versions"]
    assert list(found["metrics"]) == names


def test_list_goes_on_after_a_bundle_that_can_not_be_read(run, repository):
    (repository.root / "grey" / "1" / "manifest.json").write_bytes(b"{")
    code, out, _ = run("list")
    assert code == 0
    assert "refused: " in out
    assert len(out.splitlines()) == 4


BAD_STATE = {
    "no number": ("CURRENT", "x", 1, "holds 'x'; set it with `promote`"),
    "an absent version": ("CURRENT", "9", 3, "no version 9 .* holds: 1, 2; set it with `promote`"),
    "no share": ("CANDIDATE", "1 0%", 1, "share is 0, .*; set it with `canary`"),
}


@pytest.mark.parametrize("change", BAD_STATE)
def test_a_model_in_disorder_keeps_none_from_being_listed(run, repository, grey, change):
    name, text, expected, message = BAD_STATE[change]
    repository.publish("later", grey)
    file = repository.root / "grey" / name
    file.write_text(text)
    code, out, err = run("list")
    rows = [line.split()[:2] for line in out.splitlines()[1:]]
    assert rows == [["classes", "1"], ["grey", "1"], ["grey", "2"], ["later", "1"]]
    assert code == expected
    assert re.fullmatch(f"error: {file}: .*{message}\n", err)
    code, out, again = run("list", "--json")
    assert (code, again) == (expected, err)
    _, found, later = json.loads(out)["models"]
    assert found["faults"] == [err.removeprefix("error: ").rstrip()]
    assert found["current"] == (None if name == "CURRENT" else 2)
    assert found["candidate"] is None
    assert [version["version"] for version in found["versions"]] == [1, 2]
    assert (later["current"], "faults" in later) == (1, False)


@pytest.mark.parametrize("change", BAD_STATE)
def test_a_model_in_disorder_keeps_none_from_being_pruned(run, repository, grey, change):
    name, text, expected, message = BAD_STATE[change]
    for _ in range(2):
        repository.publish("later", grey)
    (repository.root / "grey" / name).write_text(text)
    code, out, err = run("prune", "--keep", "1")
    assert code == expected
    assert re.fullmatch(f"error: .*{message}\n", err)
    assert out == "classes: removed none; kept 1\nlater: removed 1; kept 2\n"
    assert repository.versions("grey") == [1, 2]
    code, out, again = run("prune", "--keep", "1", "--json")
    assert (code, again) == (expected, err)
    _, found, later = json.loads(out)["models"]
    assert found == {"model": "grey", "faults": [err.removeprefix("error: ").rstrip()]}
    assert later["kept"] == [2]


def test_where_no_model_is_yet_there_is_nothing_to_prune(tmp_path, capsys):
    assert main(["--repository", str(tmp_path), "prune"]) == 0
    assert "nothing to remove" in capsys.readouterr().out
    assert main(["--repository", str(tmp_path), "prune", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"dry_run": False, "models": []}
    assert main(["--repository", str(tmp_path / "nowhere"), "prune"]) == 1


def test_the_remedies_that_are_named_are_remedies(run, repository):
    (repository.root / "grey" / "CURRENT").write_text("9")
    (repository.root / "grey" / "CANDIDATE").write_text("1 0%")
    assert run("list")[0] == 3
    assert run("promote", "grey", "2")[0] == 0
    (repository.root / "grey" / "CANDIDATE").write_text("1 0%")
    assert run("list")[0] == 1
    assert run("canary", "grey", "1", "--share", "5")[0] == 0
    assert run("list")[0] == 0


def test_a_copied_version_is_refused(run, repository):
    shutil.copytree(repository.root / "grey" / "1", repository.root / "grey" / "7")
    code, out, err = run("verify", "grey")
    assert code == 4
    assert re.match(r"grey/7 refused: .*manifest\.json: is version 1 of 'grey', in the folder", err)
    assert out.count(" ok, ") == 2
    assert run("promote", "grey", "7")[0] == 4
    assert repository.current("grey") == Current(2)


def test_verify_refuses_an_encoder_that_is_none(run, repository, spoil):
    copy = spoil()
    copy.write("encoder.onnx", b"garbage")
    repository.publish("other", copy.open())
    code, _, err = run("verify", "other")
    assert code == 4
    assert re.match(r"other/1 refused: .*encoder\.onnx: is not an ONNX model", err)


def test_a_share_that_is_refused_leaves_no_trial_behind(run, repository):
    assert run("canary", "grey", "1", "--share", "1e-7")[0] == 2
    assert not (repository.root / "grey" / "CANDIDATE").exists()
    assert run("list")[0] == 0


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


def test_a_canary_begins_changes_and_ends(run, repository):
    repository.promote("grey", 1)
    assert run("canary", "grey") == (0, "grey: 1\n", "")
    assert run("canary", "grey", "2", "--share", "10") == (0, "grey: 1, candidate 2 10%\n", "")
    assert repository.candidate("grey") == Candidate(2, 10)
    assert run("list", "grey")[1].splitlines()[2].split()[:3] == ["grey", "2", "10%"]
    assert run("canary", "grey", "2", "--share", "2.5")[1] == "grey: 1, candidate 2 2.5%\n"
    assert run("canary", "grey", "--off") == (0, "grey: 1\n", "")
    assert repository.candidate("grey") is None
    assert run("canary", "grey", "--off")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "stays"),
    [
        (["promote", "grey", "2"], False),
        (["promote", "grey", "3"], False),
        (["rollback", "grey"], False),
        (["pin", "grey"], True),
        (["promote", "grey", "4"], True),  # it is CURRENT already
    ],
)
def test_a_trial_ends_where_current_moves_by_hand(run, repository, grey, arguments, stays):
    for _ in range(2):
        repository.publish("grey", grey)
    repository.set_candidate("grey", Candidate(2, 10))
    repository.publish("grey", grey, make_current=False)
    assert run(*arguments)[0] == 0
    assert (repository.candidate("grey") is not None) == stays


def test_json_for_programs(run, repository):
    repository.pin("grey", 1)
    repository.set_candidate("grey", Candidate(2, 10))

    def read(*arguments):
        code, out, err = run(*arguments, "--json")
        assert (code, err) == (0, "")
        return json.loads(out)

    candidate = {"version": 2, "share_percent": 10}
    served = {"model": "grey", "current": 1, "pinned": True, "candidate": candidate}
    digests = [repository.bundle("grey", version).digest for version in (1, 2)]
    (grey,) = read("list", "grey")["models"]
    versions = grey.pop("versions")
    assert grey == served
    assert [(entry["version"], entry["digest"]) for entry in versions] == list(
        zip((1, 2), digests, strict=True)
    )
    assert [model["model"] for model in read("list")["models"]] == ["classes", "grey"]
    shown = read("show", "grey", "2")
    assert (shown["digest"], shown["manifest"]["version"]) == (digests[1], 2)
    assert read("verify", "grey", "2") == {
        "versions": [{"model": "grey", "version": 2, "ok": True, "max_abs_diff": 0}]
    }
    assert read("canary", "grey") == served
    assert read("promote", "grey", "2") == {
        **served,
        "current": 2,
        "pinned": False,
        "candidate": None,
    }
    assert read("pin", "grey")["pinned"] is True
    assert read("rollback", "grey")["current"] == 1


def test_json_names_what_is_refused(run, repository):
    (repository.root / "grey" / "1" / "manifest.json").write_bytes(b"{")
    code, out, err = run("verify", "grey", "--json")
    assert code == 4
    refused, fine = json.loads(out)["versions"]
    assert (refused["ok"], fine["ok"]) == (False, True)
    assert refused["refused"] in err
    listed = json.loads(run("list", "grey", "--json")[1])["models"][0]["versions"]
    assert "refused" in listed[0]
    assert "digest" in listed[1]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["canary", "grey", "9", "--share", "10"], 3, "no version 9"),
        (["canary", "grey", "2", "--share", "10"], 1, "version 2 of 'grey' is CURRENT already"),
        (["canary", "grey", "1", "--share", "0"], 2, "share is 0, allowed is 0.000001"),
        (["canary", "grey", "1", "--share", "101"], 2, "share is 101, allowed"),
        (["canary", "grey", "1", "--share", "nan"], 2, "share is nan, allowed"),
        (["canary", "grey", "1", "--share", "1e-7"], 2, "share is 1e-07, allowed"),
        (["canary", "grey", "1", "--share", "x"], 2, "'x'"),
        (["prune", "--keep", "0"], 2, "keep is 0, must be at least 1"),
        (["prune", "--keep", "-1"], 2, "keep is -1, must be at least 1"),
        (["prune", "--keep", "x"], 2, "keep is x, must be at least 1"),
        (["list", ".hidden"], 2, "model name '.hidden' is not allowed"),
        (["canary", "grey", "1"], 2, "takes VERSION and --share, or --off"),
        (["canary", "grey", "--share", "5"], 2, "takes VERSION and --share, or --off"),
        (["canary", "grey", "1", "--share", "5", "--off"], 2, "or --off"),
        (["canary", "nothing", "--off"], 3, "model 'nothing' is not in"),
        (["show", "nothing"], 3, "error: model 'nothing' is not in"),
        (["list", "nothing"], 3, "it holds: classes, grey"),
        (["verify", "grey", "9"], 3, "no version 9"),
        (["promote", "grey", "9"], 3, "it holds: 1, 2"),
        (["rollback", "classes"], 3, "has no version before 1"),
        (["promote", "grey", "latest"], 2, "'latest' is no version: versions are 1, 2, 3"),
        (["promote", "grey", "0"], 2, "'0' is no version"),
        (["promote", "grey"], 2, "required: VERSION"),
        (["show", "../grey"], 2, "is not allowed"),
        ([], 2, "required: COMMAND"),
        (["delete", "grey"], 2, "invalid choice: 'delete'"),
    ],
)
def test_what_can_not_be_done_is_said(run, arguments, code, message):
    found, out, err = run(*arguments)
    assert found == code
    assert message in err
    assert out == ""


def test_a_candidate_of_other_labels_is_refused(run, repository, make_bundle):
    repository.publish("grey", make_bundle(num_classes=3), make_current=False)
    code, _, err = run("canary", "grey", "3", "--share", "10")
    assert code == 1
    assert "version 3 of 'grey' has other labels than CURRENT, 2" in err
    assert repository.candidate("grey") is None


def test_a_damaged_candidate_is_refused(run, repository):
    (repository.root / "grey" / "1" / "card.md").write_bytes(b"altered")
    assert run("canary", "grey", "1", "--share", "10")[0] == 4
    assert repository.candidate("grey") is None


def test_an_empty_repository(capsys, tmp_path):
    assert main(["--repository", str(tmp_path / "none"), "list"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "--repository DIR, or publish one with `python -m training.run`" in captured.err
    assert "none: No such file or directory" in captured.err
    assert main(["--repository", str(tmp_path), "list"]) == 1
    assert "holds no models" in capsys.readouterr().err
    assert main(["--repository", __file__, "list"]) == 1
    assert "Not a directory" in capsys.readouterr().err


def test_as_a_module(repository):
    command = [sys.executable, "-m", "models.repository", "--repository", str(repository.root)]
    result = subprocess.run(
        [*command, "verify"],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count(" ok, ") == 3
    missing = subprocess.run(
        [*command, "show", "x"], cwd=Path(__file__).parents[3], capture_output=True, check=False
    )
    assert missing.returncode == 3
