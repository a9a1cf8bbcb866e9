"""A log that nobody reads, that nobody can write, or whose reader has gone."""

import contextlib
import fcntl
import os
import pty
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models.bundle import Bundle
from models.repository import Repository
from tests.faults.small_disk import fill, small_disk
from tests.support import http_processes_of, metric, wait_for, workers_of

pytestmark = pytest.mark.chaos

DROPPED = "saddlepoint_log_lines_dropped_total"
FLAGS = ("--access-log", "true", "--reload-interval-s", "0.1", "--drain-delay-s", "0")


@pytest.fixture
def repository(tmp_path: Path, make_bundle: Callable[..., Bundle]) -> Repository:
    repository = Repository(tmp_path / "models")
    repository.publish("tiny", make_bundle())
    return repository


@contextlib.contextmanager
def ends(kind: str) -> Iterator[tuple[int, int]]:
    """What is read from, and what is written to."""
    if kind == "pipe":
        reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    elif kind == "terminal":
        reader, writer = pty.openpty()
    else:  # as systemd gives one
        pair = socket.socketpair()
        for end in pair:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        reader, writer = (end.detach() for end in pair)
    try:
        yield reader, writer
    finally:
        for end in (reader, writer):
            with contextlib.suppress(OSError):
                os.close(end)


def stuff(writer: int) -> None:
    """Fills what lies between the writer and its reader."""
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"-" * 80 + b"\n")
    os.set_blocking(writer, True)


def all_works(server: Any, repository: Repository, bundle: Bundle) -> None:
    """Probes, images, a publication, a worker's death: nothing waits for the log."""
    ask_often(server, 300)
    assert server.generate(seeds=[1], format="bmp").status_code == 400
    published = str(repository.publish("tiny", bundle).manifest.version)
    wait_for(lambda: server.generate(seeds=[1]).headers.get("x-model-version") == published)
    restarts = metric(server, "saddlepoint_worker_restarts_total")
    os.kill(workers_of(server)[0], signal.SIGKILL)
    wait_for(lambda: metric(server, "saddlepoint_worker_restarts_total") == restarts + 1)
    server.wait_until("/readyz", 200)
    assert server.generate(seeds=[1]).status_code == 200


class Reader(threading.Thread):
    """Reads a log from now on."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(daemon=True)
        self._descriptor = descriptor
        self._data = bytearray()
        self.start()

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self._descriptor, 1 << 16):
                self._data += data

    @property
    def text(self) -> str:
        return self._data.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("kind", ["pipe", "terminal", "socket"])
@pytest.mark.parametrize("full_at_start", [False, True])
def test_a_log_that_nobody_reads(
    repository: Repository,
    make_bundle: Callable[..., Bundle],
    start_server: Callable[..., Any],
    kind: str,
    full_at_start: bool,
) -> None:
    with ends(kind) as (_, writer):
        if full_at_start:
            stuff(writer)
        server = start_server(repository.root, *FLAGS, output=writer)
        all_works(server, repository, make_bundle(weights_seed=1))
        assert server.stop() == 0  # within its own deadline, and no later than it drains


def test_what_was_dropped_is_said_when_somebody_reads_again(
    repository: Repository, start_server: Callable[..., Any]
) -> None:
    with ends("pipe") as (reader, writer):
        server = start_server(repository.root, *FLAGS, output=writer)
        # More lines than a process keeps: thousands.
        (http_process,) = http_processes_of(server)
        memory = resident_kb(http_process)
        ask_often(server, 12_000)
        wait_for(lambda: metric(server, DROPPED) > 1000)
        assert resident_kb(http_process) - memory < 30_000
        log = Reader(reader)
        wait_for(lambda: bool(re.search(r"\d+ lines? of the log were dropped", log.text)))
        assert server.get("/livez?marked").status_code in (200, 400)
        server.generate(seeds=[1])
        wait_for(lambda: log.text.rstrip().splitlines()[-1].count("POST /v1/generate") == 1)
        said = sum(map(int, re.findall(r"(\d+) lines? of the log were dropped", log.text)))
        assert said == metric(server, DROPPED)
        # What came is in order, and whole: lines kept and lines dropped make all that there were.
        lines = [line for line in log.text.splitlines() if "GET /livez 200" in line]
        assert len(lines) + said >= 12_000
        assert all(" INFO serving.access: GET /livez 200 " in line[24:70] for line in lines)
        numbers = [int(re.search(r"request_id=\w+-(\w+)", line)[1], 16) for line in lines]  # type: ignore[index]
        assert numbers == sorted(numbers)
        assert server.stop() == 0
        wait_for(lambda: "Finished server process" in log.text)


def ask_often(server: Any, num: int) -> None:
    """Pipelined probes: each writes a line of the access log."""
    port = int(server.url.rpartition(":")[2])
    request = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        stream = connection.makefile("rb")
        for _ in range(num // 10):
            connection.sendall(request * 10)
            for _ in range(10):
                while stream.readline() != b"\r\n":
                    pass
                assert stream.read(3) == b"ok\n"


def resident_kb(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize("kind", ["pipe", "terminal", "socket"])
def test_a_log_whose_reader_has_gone(
    repository: Repository,
    make_bundle: Callable[..., Bundle],
    start_server: Callable[..., Any],
    kind: str,
) -> None:
    with ends(kind) as (reader, writer):
        server = start_server(repository.root, *FLAGS, output=writer)
        os.close(reader)
        all_works(server, repository, make_bundle(weights_seed=1))
        assert server.stop() == 0


def test_a_log_on_a_full_disk(
    tmp_path: Path,
    repository: Repository,
    make_bundle: Callable[..., Bundle],
    start_server: Callable[..., Any],
) -> None:
    with small_disk(tmp_path / "small", size_kb=64) as disk:
        path = disk / "log"
        with path.open("wb") as file:
            server = start_server(repository.root, *FLAGS, output=file.fileno())
            filler = fill(disk)
            all_works(server, repository, make_bundle(weights_seed=1))
            path.write_bytes(b"")  # rotated, as copytruncate does
            filler.unlink()
            server.generate(seeds=[1])
            wait_for(lambda: b"/v1/generate 200" in path.read_bytes())
            assert server.stop() == 0


def test_a_second_signal_ends_it_though_nobody_reads(
    repository: Repository, start_server: Callable[..., Any]
) -> None:
    with ends("pipe") as (_, writer):
        server = start_server(repository.root, "--drain-delay-s", "60", output=writer)
        stuff(writer)
        server.process.send_signal(signal.SIGTERM)
        server.wait_until("/readyz", 503)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(5) == 128 + signal.SIGTERM


def test_a_refusal_to_start_is_said_and_ends_though_nobody_reads(
    tmp_path: Path, start_server: Callable[..., Any]
) -> None:
    flags = ("--api-keys", str(tmp_path / "none"))
    with ends("pipe") as (_, writer):
        stuff(writer)
        refused = start_server(tmp_path, *flags, ready=False, output=writer)
        assert refused.process.wait(20) == 2
    with ends("pipe") as (reader, writer):
        log = Reader(reader)
        refused = start_server(tmp_path, *flags, ready=False, output=writer)
        assert refused.process.wait(20) == 2
        wait_for(lambda: "serving.keys add" in log.text)
