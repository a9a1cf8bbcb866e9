"""The server's own folder: made, made again, and removed, by whoever may."""

import fcntl
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from serving import run_folder
from serving.run_folder import RunFolder, remove_stale


@pytest.fixture(autouse=True)
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_it_is_its_owners_alone_and_goes_at_the_end(parent: Path) -> None:
    folder = RunFolder()
    assert folder.path.parent == parent
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert not folder.restore()
    (folder.path / "worker-0.sock").touch()
    folder.remove()
    assert not list(parent.iterdir())
    folder.remove()


def test_what_is_missing_is_made_again(parent: Path) -> None:
    folder = RunFolder()
    for remove in (
        lambda: shutil.rmtree(folder.path),
        lambda: (folder.path / "lock").unlink(),
        lambda: (folder.path / "lock").replace(parent / "elsewhere"),
    ):
        remove()
        assert folder.restore()
        assert not folder.restore()
        assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
        remove_stale(parent)
        assert folder.path.exists()


def test_where_it_cannot_be_made_again_that_is_said(parent: Path) -> None:
    folder = RunFolder()
    shutil.rmtree(folder.path)
    folder.path.write_text("something else")
    with pytest.raises(OSError, match="Not a directory"):
        folder.restore()
    folder.path.unlink()
    folder.path.symlink_to(parent)  # nobody else says where sockets lie
    with pytest.raises(NotADirectoryError):
        folder.restore()
    folder.path.unlink()
    assert folder.restore()


LIVING = """
import sys, tempfile
from serving.run_folder import RunFolder
tempfile.tempdir = sys.argv[1]
folder = RunFolder()
print(folder.path, flush=True)
sys.stdin.readline()
"""


def test_those_of_dead_servers_go_and_no_others(parent: Path) -> None:
    living = subprocess.Popen(
        [sys.executable, "-c", LIVING, str(parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with living:
        assert living.stdout is not None
        other = Path(living.stdout.readline().strip())
        for name in ("saddlepoint-notes", "saddlepoint-dead", "unrelated"):
            (parent / name).mkdir()
            (parent / name / "file").touch()
        (parent / "saddlepoint-dead" / "lock").touch()
        (parent / "unrelated" / "lock").touch()
        (parent / "saddlepoint-file").touch()
        (parent / "saddlepoint-link").symlink_to(parent / "unrelated")
        (parent / "saddlepoint-dangling").mkdir()
        (parent / "saddlepoint-dangling" / "lock").symlink_to(parent / "unrelated" / "lock")
        own = RunFolder()
        there = {path.name for path in parent.iterdir()}
        assert there == {
            *(own.path.name, other.name, "saddlepoint-notes", "unrelated", "saddlepoint-file"),
            *("saddlepoint-link", "saddlepoint-dangling"),
        }
        assert (parent / "unrelated" / "lock").exists()
        living.kill()
    assert other.exists()
    remove_stale(parent)
    assert not other.exists()
    assert own.path.exists()


def test_a_forked_process_keeps_it(parent: Path) -> None:
    """The children of a server that was killed end a little later."""
    folder = RunFolder()
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    os.close(folder._lock)
    remove_stale(parent)
    assert folder.path.exists()
    os.close(writer)
    os.waitpid(child, 0)
    remove_stale(parent)
    assert not folder.path.exists()


def test_those_of_other_users_stay(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = parent / "saddlepoint-theirs"
    folder.mkdir()
    (folder / "lock").touch()
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    remove_stale(parent)
    assert folder.exists()


def test_a_lock_is_seen_only_when_it_is_held(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who starts at the same moment would take a free one for a dead server's."""
    seen = []
    flock = fcntl.flock

    def look(descriptor: int, how: int) -> None:
        seen.extend(path.name for path in parent.glob("*/*"))
        flock(descriptor, how)

    monkeypatch.setattr(run_folder.fcntl, "flock", look)
    folder = RunFolder()
    assert "lock" not in seen
    folder.remove()


def test_a_folder_that_is_not_there_has_no_dead_servers(parent: Path) -> None:
    remove_stale(parent / "none")
