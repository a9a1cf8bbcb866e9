"""A training that is killed again and again, and one whose disk is full: nothing is lost.

The processes are forked from this one, which has imported torch already, so that a kill takes half
a second. SURVIVAL_KILLS sets their number.
"""

import os
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from training.engine.checkpoint import Checkpoints
from training.errors import RecordsError
from training.run import main

# fork() warns of threads from Python 3.12 on; torch has one here, and the child starts its own.
pytestmark = pytest.mark.filterwarnings("ignore:This process")
TINY = ["--data.resolution", "16", "--network.ngf", "4", "--network.ndf", "4", "--batch-size", "16"]
LONG = ["--total-kimg", "3.2", "--tick-kimg", "0.032", "--evaluation", "none"]
NUM_KILLS = int(os.environ.get("SURVIVAL_KILLS", "6"))
WAIT_S = 200


def start(log: Path, words: list[str], before: Callable[[], None] = lambda: None) -> int:
    """Forks a training and returns its process id."""
    pid = os.fork()
    if pid == 0:
        try:
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(output, 1)
            os.dup2(output, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            before()
            os._exit(main(words))
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(99)
    return pid


def code_of(pid: int) -> int:
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def flat(content: Any) -> list[Any]:
    if isinstance(content, dict):
        return [item for key, value in content.items() for item in [key, *flat(value)]]
    if isinstance(content, (list, tuple)):
        return [item for value in content for item in flat(value)]
    return [content.numpy().tobytes() if isinstance(content, torch.Tensor) else content]


def places(folder: Path) -> list[str]:
    return ["--runs", str(folder / "runs"), "--repository", str(folder / "models")]


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """A tick is two steps, so much of the time is in the writing of checkpoints."""
    run = tmp_path / "killed" / "runs" / "00000-digits"
    words = ["digits", *TINY, *LONG, *places(tmp_path / "killed")]
    (tmp_path / "killed").mkdir()
    log = tmp_path / "log"
    moments = random.Random(0)
    killed, deadline = 0, time.monotonic() + WAIT_S
    while killed < NUM_KILLS:
        pid = start(log, words)
        checkpoints = Checkpoints(run / "checkpoints")
        while not checkpoints.paths():
            assert time.monotonic() < deadline, log.read_text()
        time.sleep(moments.uniform(0, 0.4))  # the moment is the experiment's, not waited for
        os.kill(pid, signal.SIGKILL)
        killed += code_of(pid) == -signal.SIGKILL
        words = ["--resume", str(run)]
    assert code_of(start(log, words)) == 0, log.read_text()
    whole = tmp_path / "whole"
    whole.mkdir()
    assert code_of(start(log, ["digits", *TINY, *LONG, *places(whole)])) == 0
    ends = [
        Checkpoints(folder / "runs/00000-digits/checkpoints").latest().content
        for folder in (tmp_path / "killed", whole)
    ]
    assert flat(ends[0]) == flat(ends[1])
    bundles = [folder / "models/digits/1/model.onnx" for folder in (tmp_path / "killed", whole)]
    assert bundles[0].read_bytes() == bundles[1].read_bytes()


def test_a_full_disk_costs_a_checkpoint_and_no_training(tmp_path: Path) -> None:
    """The limit is the kernel's: a checkpoint doesn't fit into it, everything else does."""
    run = tmp_path / "runs" / "00000-digits"
    log = tmp_path / "log"
    short = ["--total-kimg", "0.032", "--tick-kimg", "0.032", "--evaluation", "none"]
    assert code_of(start(log, ["digits", *TINY, *short, *places(tmp_path)])) == 0, log.read_text()
    (good,) = Checkpoints(run / "checkpoints").paths()
    sizes = [path.stat().st_size for path in (run / "bundle").iterdir()]
    limit = (good.stat().st_size + max(sizes)) // 2
    assert max(sizes) < limit < good.stat().st_size

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    words = ["--resume", str(run), "--total-kimg", "0.096"]
    assert code_of(start(log, words, full)) == RecordsError.exit_code, log.read_text()
    said = log.read_text()
    assert "warning: tick 2 was not saved: [Errno 27] File too large" in said
    assert f"last good checkpoint: {good}" in said
    assert Checkpoints(run / "checkpoints").paths() == [good]
    assert (tmp_path / "models" / "digits" / "2" / "model.onnx").exists()
