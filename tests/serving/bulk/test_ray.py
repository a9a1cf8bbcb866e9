"""A real Ray cluster of this machine: the local executor's bytes, and failures in words."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models.bundle import Bundle
from serving.bulk.__main__ import carry_out
from serving.bulk.errors import ExecutorError, PlanError, TargetError
from serving.bulk.executors.ray_data import BundleFiles, RayExecutor
from serving.bulk.maker import Job
from serving.bulk.storage.addresses import open_store
from tests.serving.bulk.conftest import Cluster, contents, make, prepared
from tests.support import wait_for

OPTIONS = ("--count", "4000", "--shard-images", "100", "--format", "tar")

pytestmark = [
    pytest.mark.slow,
    # Ray leaves sockets and logs to the garbage collector.
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning",
        "ignore::pytest.PytestUnraisableExceptionWarning",
        "ignore::DeprecationWarning",
        "ignore::FutureWarning",
        "ignore::UserWarning",
    ),
]


@pytest.fixture
def executor(cluster: Cluster) -> Iterator[Callable[..., RayExecutor]]:
    """Connects to it, when it is up."""
    with contextlib.ExitStack() as stack:

        def connect(job: Job, bundle: Bundle, **options: Any) -> RayExecutor:
            options = {"address": cluster.address, "workers": None, "gpus": 0.0, **options}
            deadline = time.monotonic() + 120
            while True:
                try:
                    found = RayExecutor(job, bundle, **options)
                    stack.callback(found.close)
                    return found
                except ExecutorError as error:
                    absent = "no cluster can be reached" in str(error)
                    if not absent or time.monotonic() > deadline:
                        raise

        yield connect


@pytest.mark.timeout(300)
def test_a_killed_actor_costs_nothing_and_the_bytes_are_the_local_ones(
    executor: Any, cluster: Cluster, grey: Bundle, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ray"
    ready = prepared(grey, *OPTIONS, out=str(out))
    job = Job(ready.plan, open_store(str(out)))
    killed: list[int] = []

    def kill() -> None:
        wait_for(lambda: len(list(out.glob("data/*.tar"))) >= 3, timeout_s=120)
        for pid in cluster.actors()[:1]:
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    killer = threading.Thread(target=kill)
    killer.start()
    first = executor(job, grey)
    assert carry_out(ready, job, first) == 0
    killer.join()
    first.close()
    assert killed
    make(grey, str(tmp_path / "local"), *OPTIONS)
    assert contents(out) == contents(tmp_path / "local")
    # And again: all is there.
    assert carry_out(ready, job, executor(job, grey, workers=1)) == 0
    assert "0 images made" in capfd.readouterr().out


def test_a_place_that_is_lost_ends_in_words(executor: Any, grey: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ready = prepared(grey, "--count", "300", "--shard-images", "100", out=str(out))
    job = Job(ready.plan, open_store(str(out)))
    out.mkdir()
    (out / "images").touch()  # no folder can be made there
    with pytest.raises(TargetError, match="finished shards stay"):
        list(executor(job, grey)(iter_works(ready)))


def iter_works(ready):
    from serving.bulk.maker import Work
    from serving.bulk.plan import shards

    return (Work(shard) for shard in shards(ready.plan, ready.seeds, ready.listed))


def test_a_cluster_that_is_too_small_is_refused(
    executor: Any, grey: Bundle, tmp_path: Path
) -> None:
    ready = prepared(grey, *OPTIONS)
    job = Job(ready.plan, open_store(str(tmp_path)))
    with pytest.raises(ExecutorError, match="--workers is 99, but the Ray cluster has 2 CPUs"):
        executor(job, grey, workers=99)
    with pytest.raises(ExecutorError, match="the Ray cluster has 0 GPUs"):
        executor(job, grey, gpus=0.25)


def test_a_bundle_travels_to_nodes_that_lack_it(grey: Bundle, tmp_path: Path) -> None:
    files = BundleFiles.read(grey)
    assert files.open().path == grey.path
    elsewhere = BundleFiles(str(tmp_path / "absent"), files.digest, files.files).open()
    assert elsewhere.path != grey.path
    assert elsewhere.digest == grey.digest
    elsewhere.verify_files()


def test_ray_that_isn_t_installed_is_refused(
    grey: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    job = Job(prepared(grey, *OPTIONS).plan, open_store(str(tmp_path)))
    with pytest.raises(PlanError, match=r"--ray is auto: that needs Ray; .*\[ray\]"):
        RayExecutor(job, grey, address="auto", workers=None, gpus=0.0)
