"""What tests of several rooms ask of processes, metrics and users; fixtures are in conftest.py."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def wait_for(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    """Returns when the condition holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def metric(server: Any, name: str) -> float:
    """A value of a server's /metrics, summed over its labels; 0 where there is none yet."""
    return sum(
        float(line.split()[-1])
        for line in server.get("/metrics").text.splitlines()
        if line.startswith((name + " ", name + "{"))
    )


def workers_of(server: Any) -> list[int]:
    """Inference workers that live; LitServe spawns them, and forks the HTTP processes."""
    return [pid for pid, command in _children_of(server) if b"spawn_main" in command]


def http_processes_of(server: Any) -> list[int]:
    """Processes that speak HTTP."""
    return [pid for pid, command in _children_of(server) if b"multiprocessing" not in command]


def _children_of(server: Any) -> Iterator[tuple[int, bytes]]:
    """Processes that the server started, by whichever of its threads, and their command lines."""
    for children in Path(f"/proc/{server.process.pid}/task").glob("*/children"):
        for child in children.read_text().split():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                yield int(child), Path(f"/proc/{child}/cmdline").read_bytes()


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Root may do everything, so it steps down."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
