"""Bulk runs in this process, and as the command that a user gives."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from models.bundle import Bundle
from serving.bulk.__main__ import carry_out
from serving.bulk.arguments import parser
from serving.bulk.maker import Done, Job, ShardMaker, Work
from serving.bulk.planning import Prepared, prepare
from serving.bulk.storage.addresses import open_store
from tests.conftest import free_port
from tests.support import children_of

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def grey(make_bundle: Callable[..., Bundle]) -> Bundle:
    return make_bundle()


@pytest.fixture(scope="session")
def colour(make_bundle: Callable[..., Bundle]) -> Bundle:
    return make_bundle(size=16, channels=3, num_classes=3)


def prepared(bundle: Bundle, *options: str, out: str = "unused") -> Prepared:
    """The plan of a command line."""
    return prepare(parser("").parse_args([str(bundle.path), "--out", out, *options]))


class InlineExecutor:
    """Makes the shards in this process: no second of start for each worker."""

    def __init__(self, job: Job, bundle: Bundle) -> None:
        self._maker = ShardMaker(job, bundle, "cpu")
        self.made: list[int] = []

    def __call__(self, works: Iterator[Work]) -> Iterator[Done]:
        for work in works:
            done = self._maker(work)
            if done.made:
                self.made.append(work.shard.index)
            yield done


def make(bundle: Bundle, out: str, *options: str, check_digests: bool = True) -> list[int]:
    """A whole run in this process; the shards that it made."""
    ready = prepared(bundle, *options, out=out)
    job = Job(ready.plan, open_store(out), check_digests)
    executor = InlineExecutor(job, bundle)
    assert carry_out(ready, job, executor) == 0
    return executor.made


def command(bundle: Bundle, out: Any, *options: str) -> list[str]:
    """The command line of a run."""
    start = [sys.executable, "-m", "serving.bulk", str(bundle.path)]
    return [*start, "--out", str(out), *options]


def run(bundle: Bundle, out: Any, *options: str) -> "subprocess.CompletedProcess[str]":
    """A run as a user starts it."""
    return subprocess.run(command(bundle, out, *options), cwd=ROOT, capture_output=True, text=True)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster of one node."""

    address: str
    pid: int

    def actors(self) -> list[int]:
        """Processes of Ray Data's actors, of this cluster alone."""
        found, left = [], [self.pid]
        while left:
            children = dict(children_of(left.pop()))
            left += children
            found += [pid for pid, line in children.items() if b"ray::MapWorker" in line]
        return found


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """As `ray start` makes it; it ends with its own process alone."""
    environ = pytest.MonkeyPatch()
    # Ray reads all of these when it is imported; the token is what lets a driver in.
    environ.setenv("RAY_USAGE_STATS_ENABLED", "0")
    environ.setenv("RAY_AUTH_MODE", "token")
    environ.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 2)
    port = free_port()
    folder = tempfile.mkdtemp(prefix="ray-")  # sockets need a short path
    flags = ["--num-cpus=2", "--include-dashboard=false", "--object-store-memory=80000000"]
    place = [f"--port={port}", f"--temp-dir={folder}"]
    process = subprocess.Popen(
        [Path(sys.executable).with_name("ray"), "start", "--head", "--block", *flags, *place],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield Cluster(f"127.0.0.1:{port}", process.pid)
    finally:
        process.terminate()
        process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)
        environ.undo()
