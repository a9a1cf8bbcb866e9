"""The soak, for some seconds; for minutes: SOAK_S=600 SOAK_SEED=1 pytest -s with this file."""

import contextlib
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from models.bundle import Bundle
from models.repository import Repository
from tests.chaos.client import run
from tests.conftest import server_process
from tests.faults import soak_faults
from tests.faults.small_disk import small_disk
from tests.faults.soak import (
    FAULTS,
    LogReader,
    Stage,
    check_memory,
    check_quiet,
    num_descriptors,
    report,
    soak,
)
from tests.serving.conftest import make_key
from tests.support import wait_for

pytestmark = pytest.mark.chaos

SECONDS = float(os.environ.get("SOAK_S", "20"))
SEED = int(os.environ.get("SOAK_SEED", "1"))
LONG_S = 120
"""From then on memory has something to say."""
FLAGS = (
    *("--api-processes", "2", "--workers-per-device", "2", "--compute-threads", "1"),
    *("--reload-interval-s", "0.2", "--model-control", "clients", "--keys-grace-s", "2"),
    *("--request-timeout-ms", "10000", "--worker-timeout-s", "3", "--drain-delay-s", "0"),
    *("--max-seeds", "2000", "--max-waiting-rows", "8000", "--cache-bytes", "1000000"),
    *("--access-log", "true"),
)


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[tuple[Path, bool]]:
    """A small disk, where it can be had."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        yield folder, False
        return
    subprocess.run(["umount", str(folder)], check=True)
    with small_disk(folder) as disk:
        yield disk, True


@pytest.mark.timeout(SECONDS + 400)
def test_a_soak(tmp_path: Path, make_bundle: Callable[..., Bundle]) -> None:
    assert soak_faults
    reader, writer = os.pipe()
    log = LogReader(reader)
    repository = Repository(tmp_path / "models")
    keys = tmp_path / "keys"
    key = make_key(keys, "soak", "--scopes", soak_faults.SCOPES)
    bundles = [make_bundle(weights_seed=seed) for seed in range(4)]
    with contextlib.ExitStack() as stack:
        folder, is_small = stack.enter_context(scratch(tmp_path / "small"))
        stage = Stage(
            server=None,
            repository=repository,
            scratch=folder,
            keys_path=keys,
            key=key,
            bundles=bundles,
            log=log,
            random=random.Random(SEED),
            num_processes=5,
            scratch_is_small=is_small,
        )
        stage.publish()
        flags = (*FLAGS, "--api-keys", str(keys))
        stage.server = stack.enter_context(
            server_process(
                repository.root,
                tmp_path,
                *flags,
                environ={"TMPDIR": str(folder)},
                output=writer,
            )
        )
        try:
            before = num_descriptors(stage)
            run(soak(stage, SECONDS, sorted(FAULTS)))
            check_quiet(stage)
            stage.compare_early()
        finally:
            # A copy: its reader could not go on while the file is written.
            (tmp_path / "soak.log").write_bytes(bytes(log.data))
            print(report(stage))
        assert not stage.wrong, stage.wrong[:5]
        assert stage.answers[200] > SECONDS
        if SECONDS >= LONG_S:
            early, late = check_memory(stage)
            print(f"memory of all processes: early {early:.1f} MB, late {late:.1f} MB")
        # A worker that is just being started looks like an HTTP process, and is none of those.
        wait_for(
            lambda: all(
                num <= before.get(pid, 0) + 8 for pid, num in num_descriptors(stage).items()
            )
        )
        assert "unhandled exception" not in log.text
        assert stage.server.stop() == 0
        assert not stage.run_folders()
    os.close(writer)
    log.join()
    os.close(reader)
