"""Kill -9 of workers and driver, SIGTERM and Ctrl-C: the same command gives the same bytes."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from models.bundle import Bundle
from tests.serving.bulk.conftest import ROOT, command, contents, make
from tests.support import spawned_by, wait_for

MANY = ("--count", "6000", "--shard-images", "100", "--format", "tar")
NUM_SHARDS = 60


@pytest.fixture(scope="module")
def undisturbed(grey: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("bulk") / "out"
    make(grey, str(out), *MANY)
    return contents(out)


@pytest.fixture
def start(grey: Bundle, tmp_path: Path):
    """Starts the command; whatever is left of it ends with the test."""
    with contextlib.ExitStack() as stack:

        def begin(workers: int = 2) -> "subprocess.Popen[str]":
            process = subprocess.Popen(
                command(grey, tmp_path / "out", *MANY, "--workers", str(workers)),
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            stack.callback(end, process)
            return process

        yield begin


def end(process: "subprocess.Popen[str]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def shards_of(out: Path) -> int:
    return len(list(out.glob("data/*.tar")))


def gone(pids: list[int]) -> Callable[[], bool]:
    return lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.parametrize("moment", [1, 25])
def test_a_killed_driver_s_run_goes_on(
    moment: int, start, grey: Bundle, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    """Its workers end by themselves, with the shard that they have."""
    out = tmp_path / "out"
    process = start()
    wait_for(lambda: shards_of(out) >= moment)
    workers = spawned_by(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(workers) == 2
    wait_for(gone(workers))
    assert not (out / "manifest.json").exists()
    made = make(grey, str(out), *MANY)
    assert 0 < len(made) <= NUM_SHARDS - moment + 2
    assert contents(out) == undisturbed


def test_killed_workers_are_replaced(start, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start()
    killed: list[int] = []
    for moment in (1, 20, 40):
        wait_for(lambda moment=moment: shards_of(out) >= moment)
        for worker in spawned_by(process.pid)[: 1 if moment < 40 else 2]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
                killed.append(worker)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert len(killed) >= 3
    assert contents(out) == undisturbed


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_leaves_nothing_half_written(
    number: int, code: int, start, grey: Bundle, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = start()
    wait_for(lambda: shards_of(out) >= 3)
    workers = spawned_by(process.pid)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == code
    assert gone(workers)()
    assert [path for path in out.rglob(".*") if path.is_file()] == []
    make(grey, str(out), *MANY)
    assert contents(out) == undisturbed


def test_a_shard_that_ends_every_worker_ends_the_run(
    grey: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In words, instead of starting workers for ever."""
    from serving.bulk.errors import ExecutorError
    from serving.bulk.executors import local
    from serving.bulk.maker import Job, Work
    from serving.bulk.plan import shards
    from serving.bulk.storage.addresses import open_store
    from tests.serving.bulk.conftest import prepared

    ready = prepared(grey, *MANY)
    monkeypatch.setattr(local, "run_worker", os._exit)  # ends with what it is given: an error
    monkeypatch.setattr(local, "MAX_DEATHS", 2)
    job = Job(ready.plan, open_store(str(tmp_path)))
    executor = local.LocalExecutor(job, grey, ["cpu"])
    works = (Work(shard) for shard in shards(ready.plan, ready.seeds, ready.listed))
    with pytest.raises(ExecutorError, match="shard 0 has ended 2 workers, the last with exit code"):
        list(executor(works))
    assert executor.pids == []
