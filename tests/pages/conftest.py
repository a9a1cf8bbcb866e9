"""A new clone in which the front page's first command was run, once for all pages."""

import fcntl
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from models.repository import Repository
from tests.pages.reading import statements
from tests.pages.shell import Shell, clone

WRITTEN = ("runs", "model-repository")


@pytest.fixture(scope="session")
def quick_start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make serve` wrote in a new clone, with a second model beside `digits`."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if base.name.startswith("popen-") else base  # of all workers
    folder = shared / "quick-start"
    with (shared / "quick-start.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a try that failed
            folder.mkdir()
            make_quick_start(folder)
            (folder / "done").touch()
        fcntl.flock(lock, fcntl.LOCK_UN)
    return folder / "clone"


def make_quick_start(folder: Path) -> None:
    """Runs the first command of README.md until the server is ready."""
    first = statements("README.md")[0].code
    assert first == "make serve\n"
    clone(folder / "clone")
    shell = Shell(folder, folder / "clone")
    try:
        shell.serve(first)
    finally:
        shell.close()
    repository = Repository(folder / "clone" / "model-repository")
    repository.publish("faces", repository.bundle("digits"))


@pytest.fixture
def new_shell(tmp_path: Path, quick_start: Path) -> Iterator[Callable[..., Shell]]:
    """Opens shells in a clone of their own; what they started ends with the test."""
    shells = []

    def make(*, fresh: bool = False) -> Shell:
        where = tmp_path / "clone"
        clone(where)
        for name in () if fresh else WRITTEN:
            shutil.copytree(quick_start / name, where / name)
        shells.append(Shell(tmp_path, where))
        return shells[-1]

    yield make
    for shell in shells:
        shell.close()
