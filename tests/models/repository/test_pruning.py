"""Which versions go, which stay, and what a reader in another process sees of it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from models.errors import BundleError, NotInRepositoryError, RepositoryError
from models.repository import Current, Repository
from models.repository.__main__ import main
from models.repository.candidate import Candidate
from models.repository.locks import STAGING, SharedLock
from models.repository.pruning import Pruned, prune
from models.repository.removal import remove
from tests.support import as_nobody

HOLDER = """
import sys
from pathlib import Path
from models.repository.locks import SharedLock
lock = SharedLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory, grey):
    """What `six` is a copy of: to publish means to wait for the disk."""
    repository = Repository(tmp_path_factory.mktemp("published"))
    for _ in range(6):
        repository.publish("grey", grey)
    return repository


@pytest.fixture
def six(tmp_path, published):
    """Versions 1 .. 6 of "grey", 6 CURRENT."""
    return Repository(Path(shutil.copytree(published.root, tmp_path / "repository")))


def hold(repository: Repository, version: int) -> "subprocess.Popen[str]":
    """Another process that is using a version."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(repository.root / "grey" / str(version))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize(
    ("keep", "left"), [(1, [6]), (2, [5, 6]), (3, [4, 5, 6]), (6, [1, 2, 3, 4, 5, 6]), (9, None)]
)
def test_the_newest_stay(six, keep, left):
    before = six.versions("grey")
    pruned = prune(six, "grey", keep=keep)
    assert six.versions("grey") == (left or before)
    assert pruned == Pruned(
        removed=[version for version in before if version not in (left or before)],
        in_use=[],
        kept=left or before,
    )
    six.bundle("grey").verify_files()
    assert not list((six.root / "grey").glob(f"{STAGING}*"))


def test_current_and_the_candidate_stay_however_old(six):
    six.promote("grey", 2, pin=True)
    six.set_candidate("grey", Candidate(4, 10))
    assert prune(six, "grey", keep=1) == Pruned(removed=[1, 3, 5], in_use=[], kept=[2, 4, 6])
    assert six.current("grey") == Current(2, pinned=True)
    assert six.candidate("grey") == Candidate(4, 10)
    six.bundle("grey", 4).verify_files()


def test_a_number_is_never_given_again(six, grey):
    prune(six, "grey", keep=1)
    assert six.publish("grey", grey).manifest.version == 7
    with pytest.raises(RepositoryError, match="version 7 of 'grey' stays: it is CURRENT"):
        remove(six, "grey", 7)
    six.promote("grey", 6)
    assert remove(six, "grey", 7).versions == [7]
    assert six.versions("grey") == [6]
    assert six.publish("grey", grey).manifest.version == 8


def test_nothing_goes_in_a_dry_run(six):
    assert prune(six, "grey", keep=2, dry_run=True).removed == [1, 2, 3, 4]
    assert six.versions("grey") == [1, 2, 3, 4, 5, 6]


def test_a_dry_run_writes_nothing(six):
    """Not even a lock file, and it clears nothing away."""
    folder = six.root / "grey"
    (folder / ".lock").unlink()
    (folder / f"{STAGING}7").mkdir()
    before = sorted(six.root.rglob("*"))
    prune(six, "grey", keep=2, dry_run=True)
    assert sorted(six.root.rglob("*")) == before


def test_a_dry_run_on_a_volume_that_can_not_be_written(grey):
    with tempfile.TemporaryDirectory() as name:  # where nobody can look
        repository = Repository(Path(name) / "repository")
        for _ in range(4):
            repository.publish("grey", grey)
        folders = [Path(name), repository.root, *repository.root.rglob("*")]
        for path in folders:
            path.chmod(0o555 if path.is_dir() else 0o444)
        lock = SharedLock(repository.root / "grey" / "2")
        try:
            with as_nobody():
                found = prune(repository, "grey", keep=2, dry_run=True)
                with pytest.raises(RepositoryError, match="Permission denied"):
                    prune(repository, "grey", keep=2)
            (repository.root / "grey" / "1" / "manifest.json").chmod(0)
            with as_nobody(), pytest.raises(RepositoryError, match=r"1/manifest\.json: Perm"):
                prune(repository, "grey", keep=2, dry_run=True)
        finally:
            lock.release()
            for path in folders:
                path.chmod(0o755 if path.is_dir() else 0o644)
        assert found == Pruned(removed=[1], in_use=[2], kept=[3, 4])


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_manifest_that_is_no_file(six, tmp_path, kind):
    """Nobody can use it: no lock is given, none is waited for, and the version may go."""
    manifest = six.root / "grey" / "1" / "manifest.json"
    shutil.move(manifest, tmp_path / "manifest.json")
    if kind == "link":
        manifest.symlink_to(tmp_path / "manifest.json")
    elif kind == "pipe":
        os.mkfifo(manifest)
    else:
        manifest.mkdir()
    with pytest.raises(BundleError, match=r"manifest\.json: Is .*; publish the model again"):
        SharedLock(six.root / "grey" / "1")
    assert prune(six, "grey", keep=5).removed == [1]
    assert (tmp_path / "manifest.json").exists()


@pytest.mark.parametrize("end", ["asked", "killed"])
def test_what_another_process_is_using_stays_until_it_ends(six, end):
    process = hold(six, 2)
    try:
        assert prune(six, "grey", keep=2) == Pruned(removed=[1, 3, 4], in_use=[2], kept=[5, 6])
        six.bundle("grey", 2).verify_files()
        with pytest.raises(RepositoryError, match="version 2 of 'grey' stays: a process is using"):
            remove(six, "grey", 2)
    finally:
        if end == "killed":
            process.kill()
        process.communicate("\n")
    assert prune(six, "grey", keep=2).removed == [2]
    assert six.versions("grey") == [5, 6]


def test_one_version_goes_or_is_refused_with_the_reason(six):
    six.set_candidate("grey", Candidate(4, 10))
    remove(six, "grey", 3)
    assert six.versions("grey") == [1, 2, 4, 5, 6]
    with pytest.raises(RepositoryError, match="it is the candidate: end that first"):
        remove(six, "grey", 4)
    with pytest.raises(NotInRepositoryError, match="no version 3"):
        remove(six, "grey", 3)


def test_a_lock_on_a_version_that_is_gone(six):
    with pytest.raises(NotInRepositoryError, match="was removed"):
        SharedLock(six.root / "grey" / "9")
    lock = SharedLock(six.root / "grey" / "1")
    lock.release()
    lock.release()
    assert prune(six, "grey", keep=1).removed == [1, 2, 3, 4, 5]


def test_a_version_without_a_manifest_goes_too(six):
    (six.root / "grey" / "1" / "manifest.json").unlink()
    assert prune(six, "grey", keep=5).removed == [1]


@pytest.mark.parametrize(("file", "text"), [("CURRENT", "x"), ("CANDIDATE", "3")])
def test_where_it_is_not_known_what_is_served_nothing_goes(six, file, text):
    (six.root / "grey" / file).write_text(text)
    with pytest.raises(RepositoryError, match=f"{file}: .*set it with"):
        prune(six, "grey", keep=1)
    assert six.versions("grey") == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("keep", [0, -1])
def test_something_must_be_kept(six, keep):
    with pytest.raises(RepositoryError, match=f"keep is {keep}, must be at least 1"):
        prune(six, "grey", keep=keep)


def test_an_unknown_model_leaves_no_folder_behind(six):
    with pytest.raises(NotInRepositoryError, match="model 'other' is not in"):
        prune(six, "other", keep=1)
    assert not (six.root / "other").exists()


def test_a_reader_finds_the_whole_of_a_version_or_nothing(six, grey):
    """A thread that opens versions as a server does, while others come and go."""
    faults: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            for version in six.versions("grey"):
                try:
                    lock = SharedLock(six.root / "grey" / str(version))
                except NotInRepositoryError:
                    continue
                try:
                    six.bundle("grey", version).verify_files()
                except BaseException as error:
                    faults.append(error)
                finally:
                    lock.release()

    reader = threading.Thread(target=read)
    reader.start()
    removed = []
    for _ in range(20):
        six.publish("grey", grey)
        removed += prune(six, "grey", keep=1).removed
    done.set()
    reader.join()
    assert not faults
    assert len(removed) > 10


def test_by_the_command(six, capsys):
    def run(*words: str) -> tuple[int, str, str]:
        try:
            code = main(["--repository", str(six.root), *words])
        except SystemExit as ended:
            code = int(ended.code or 0)
        return code, *capsys.readouterr()

    holder = hold(six, 1)
    try:
        code, out, _ = run("prune", "--keep", "4", "--dry-run")
        assert (code, out) == (0, "grey: would remove 2; kept 3, 4, 5, 6; in use 1\n")
        _, out, _ = run("prune", "grey", "--keep", "4", "--json")
        assert json.loads(out) == {
            "dry_run": False,
            "models": [{"model": "grey", "removed": [2], "in_use": [1], "kept": [3, 4, 5, 6]}],
        }
        code, _, err = run("prune", "grey", "1")
        assert code == 1
        assert "a process is using it" in err
    finally:
        holder.communicate("\n")
    assert run("prune", "grey", "1")[1] == "grey: removed 1\n"
    assert run("prune", "grey", "1")[0] == 3
    assert run("prune", "grey", "6")[0] == 1
    assert run("prune", "nothing")[0] == 3
    assert run("prune", "grey", "--keep", "0")[0] == 2
    assert run("prune", "grey", "3", "--dry-run")[0] == 2
