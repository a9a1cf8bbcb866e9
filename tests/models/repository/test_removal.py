"""What goes when somebody says so, what stays unless forced, and what is served afterwards."""

import shutil
from pathlib import Path

import pytest

from models.errors import NotInRepositoryError, RepositoryError
from models.repository import Current, Repository
from models.repository.__main__ import main
from models.repository.candidate import Candidate
from models.repository.locks import STAGING, SharedLock
from models.repository.removal import remove


@pytest.fixture(scope="module")
def published(tmp_path_factory, grey):
    repository = Repository(tmp_path_factory.mktemp("published"))
    for _ in range(3):
        repository.publish("grey", grey)
    return repository


@pytest.fixture
def three(tmp_path, published):
    """Versions 1 .. 3 of "grey", 3 CURRENT."""
    return Repository(Path(shutil.copytree(published.root, tmp_path / "repository")))


def test_what_is_served_goes_by_force_alone_and_the_one_before_is_served(three):
    with pytest.raises(RepositoryError, match=r"it is CURRENT.*`remove` it with --force"):
        remove(three, "grey", 3)
    assert three.versions("grey") == [1, 2, 3]
    removed = remove(three, "grey", 3, force=True)
    assert removed.versions == [3]
    assert removed.notes == [
        "version 2 is served now, in the place of version 3, which was CURRENT"
    ]
    assert three.current("grey") == Current(2)
    assert not list((three.root / "grey").glob(f"{STAGING}*"))


def test_a_bad_newest_is_replaced_by_one_that_is_whole(three, grey):
    for version, name in ((3, "manifest.json"), (2, "model.onnx")):
        (three.root / "grey" / str(version) / name).write_bytes(b"damaged")
    remove(three, "grey", 3, force=True)
    assert three.current("grey") == Current(1)
    three.bundle("grey").verify_files()
    assert three.publish("grey", grey).manifest.version == 4  # 3 is never given again


@pytest.mark.parametrize("content", [b"9\n", b"\xff\xfe"])
def test_a_current_that_names_nothing_is_set_anew(three, content):
    (three.root / "grey" / "CURRENT").write_bytes(content)
    assert remove(three, "grey", 3, force=True).notes == [
        "version 2 is served now, in the place of CURRENT"
    ]
    assert three.current("grey") == Current(2)


def test_a_pinned_version_leaves_its_pin(three, grey):
    three.pin("grey", 2)
    remove(three, "grey", 2, force=True)
    assert three.current("grey") == Current(1, pinned=True)
    three.publish("grey", grey)
    assert three.current("grey") == Current(1, pinned=True)


def test_a_version_on_trial_stays_unless_forced(three):
    three.set_candidate("grey", Candidate(2, 10))
    with pytest.raises(RepositoryError, match="it is the candidate"):
        remove(three, "grey", 2)
    assert remove(three, "grey", 2, force=True).notes == ["the trial of version 2 has ended"]
    assert three.candidate("grey") is None
    assert three.current("grey") == Current(3)


def test_a_version_in_use_stays_unless_forced(three):
    lock = SharedLock(three.root / "grey" / "1")
    try:
        with pytest.raises(RepositoryError, match="a process is using it"):
            remove(three, "grey", 1)
        assert three.versions("grey") == [1, 2, 3]
        remove(three, "grey", 1, force=True)
    finally:
        lock.release()
    assert three.versions("grey") == [2, 3]


def test_a_whole_model_goes_and_its_numbers_stay_used(three, grey):
    with pytest.raises(RepositoryError, match="--force"):
        remove(three, "grey")
    assert three.versions("grey") == [1, 2, 3]
    removed = remove(three, "grey", force=True)
    assert removed.versions == [1, 2, 3]
    assert removed.notes == ["no version is left, the model is not served any more"]
    assert three.names() == []
    with pytest.raises(NotInRepositoryError):
        three.bundle("grey")
    assert three.publish("grey", grey).manifest.version == 4
    assert three.current("grey") == Current(4)


def test_the_command_names_versions_with_an_at_sign(three, capsys):
    places = ["--repository", str(three.root), "remove"]
    assert main([*places, "grey@2"]) == 0
    assert capsys.readouterr().out == "grey: removed 2\n"
    assert main([*places, "grey@2"]) == 3
    assert main([*places, "grey@3"]) == 1
    assert "--force" in capsys.readouterr().err
    assert main([*places, "grey@3", "--force", "--json"]) == 0
    assert '"removed": [\n    3\n  ]' in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*places, "grey@x"])
