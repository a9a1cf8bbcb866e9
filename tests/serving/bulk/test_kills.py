"""Kill -9 at random moments, local and on Ray: the same command ends with the undisturbed bytes.

One kill of each kind by default, which prints what it did; BULK_KILLS=10 makes ten, of Ray's actors
too, one of which test_ray.py kills:

    BULK_KILLS=10 pytest tests/serving/bulk/test_kills.py -s -n0
"""

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models.bundle import Bundle
from tests.serving.bulk.conftest import ROOT, Cluster, command, contents, make
from tests.support import spawned_by, wait_for

MANY = "BULK_KILLS" in os.environ
NUM_KILLS = int(os.environ.get("BULK_KILLS", "1"))
SHARDS = 60
OPTIONS = ("--count", "6000", "--shard-images", "100", "--format", "tar")


@pytest.fixture(scope="module")
def undisturbed(grey: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """By one worker of this process."""
    out = tmp_path_factory.mktemp("bulk") / "out"
    assert len(make(grey, str(out), *OPTIONS)) == SHARDS
    return contents(out)


@contextlib.contextmanager
def started(*words: str) -> Iterator["subprocess.Popen[str]"]:
    """A run; whatever is left of it ends with the block."""
    process = subprocess.Popen(
        words,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def finish(words: list[str]) -> int:
    """The same command to its end; the number of images that it made."""
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if " images made" in line]
    return int(line.split()[0].replace(",", ""))


def kill_and_go_on(
    words: list[str],
    out: Path,
    victims: Callable[["subprocess.Popen[str]"], list[int]],
    kind: str,
    undisturbed: dict[str, bytes],
) -> None:
    """A run, a kill within it, and the same command again.

    victims: which processes may be killed; the run itself among them is a killed driver.
    """
    draw = random.Random()

    def num_shards() -> int:
        return len(list(out.glob("data/*.tar")))

    for number in range(NUM_KILLS):
        moment = draw.randrange(SHARDS - 10)
        with started(*words) as process:

            def is_time(process: Any = process, moment: int = moment) -> bool:
                if process.poll() is not None:
                    pytest.fail(process.communicate()[0])
                return num_shards() >= moment and bool(victims(process))

            wait_for(is_time, 200)
            time.sleep(draw.uniform(0, 0.03))  # so that it need not be where a shard ends
            victim = draw.choice(victims(process) or [process.pid])
            seen = num_shards()
            os.kill(victim, signal.SIGKILL)
            told, _ = process.communicate(timeout=280)
            is_driver = victim == process.pid
            assert process.returncode == (-signal.SIGKILL if is_driver else 0), told
        if is_driver:
            assert not (out / "manifest.json").exists()
        made = finish(words)
        same = contents(out) == undisturbed
        print(f"{kind} {number}: killed at {seen} shards, {made} images made after, same {same}")
        assert same
        assert (made > 0) == is_driver
        for path in sorted(out.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()


def is_up(bundle: Bundle, cluster: Cluster, tmp_path: Path) -> bool:
    """Whether the cluster takes a run; raises where it ends for another reason."""
    words = command(bundle, tmp_path / "first", "--count", "1", "--ray", cluster.address)
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0 or "no cluster can be reached" in done.stderr, done.stderr
    return done.returncode == 0


@pytest.mark.timeout(120 + 120 * NUM_KILLS)
@pytest.mark.parametrize("victim", ["worker", "driver"])
def test_local(victim: str, grey: Bundle, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"

    def victims(process: "subprocess.Popen[str]") -> list[int]:
        return [process.pid] if victim == "driver" else spawned_by(process.pid)

    words = command(grey, out, *OPTIONS, "--workers", "2")
    kill_and_go_on(words, out, victims, f"local {victim}", undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(300 + 300 * NUM_KILLS)
@pytest.mark.parametrize("victim", [*["actor"] * MANY, "driver"])
def test_ray(
    victim: str,
    cluster: Cluster,
    grey: Bundle,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"

    def victims(process: "subprocess.Popen[str]") -> list[int]:
        return [process.pid] if victim == "driver" else cluster.actors()

    words = command(grey, out, *OPTIONS, "--ray", cluster.address)
    wait_for(lambda: is_up(grey, cluster, tmp_path), 120)
    kill_and_go_on(words, out, victims, f"ray {victim}", undisturbed)
