"""What tests of several rooms ask of processes, metrics and users; fixtures are in conftest.py."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx


class _ClientOfThread(threading.local):
    """httpx's requests, each on a new connection, as `httpx.get` has; that takes 25 ms more.

    Threads share no pool: one would close the socket that another one waits for (EBADF).
    """

    def __init__(self) -> None:
        limits = httpx.Limits(max_keepalive_connections=0, max_connections=None)
        self._client = httpx.Client(timeout=30, verify=False, limits=limits)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


HTTP: Any = _ClientOfThread()


def wait_for(condition: Callable[[], bool], timeout_s: float = 120) -> None:
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


def make_service(settings: Any, folder: Path) -> Any:
    """What an HTTP process holds, without a worker."""
    from serving.process.key_watch import KeyFile
    from serving.process.service import Service
    from serving.process.shared import Shared

    path = settings.api_keys
    settings = settings.chosen("cpu", 1)
    shared = Shared.make(settings, 0, None if path is None else KeyFile.read(path))
    return Service(
        settings,
        run_folder=folder,
        shared=shared,
        index=0,
        num_workers=0,
        on_ready=lambda _: None,
    )


def workers_of(server: Any) -> list[int]:
    """Inference workers that live; LitServe spawns them, and forks the HTTP processes."""
    return spawned_by(server.process.pid)


def spawned_by(pid: int) -> list[int]:
    """Processes that multiprocessing spawned for a process, and that live."""
    return [child for child, command in children_of(pid) if b"spawn_main" in command]


def http_processes_of(server: Any) -> list[int]:
    """Processes that speak HTTP."""
    return [
        pid for pid, command in children_of(server.process.pid) if b"multiprocessing" not in command
    ]


def children_of(pid: int) -> Iterator[tuple[int, bytes]]:
    """Children of a process, by whichever of its threads, and their command lines."""
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
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
