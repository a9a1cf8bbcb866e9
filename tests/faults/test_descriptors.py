"""A server whose file descriptors run out: what it can't take it refuses, and says so."""

import contextlib
import json
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ServerProcess
from tests.faults.raw import Raw, raw
from tests.support import http_processes_of, metric, wait_for, workers_of

pytestmark = pytest.mark.skipif(shutil.which("prlimit") is None, reason="no prlimit here")

REFUSED = 'saddlepoint_connections_refused_total{reason="descriptors"}'
LIMIT = 128


def limited(limit: int) -> tuple[str, ...]:
    return ("prlimit", f"--nofile={limit}:{limit}")


@contextlib.contextmanager
def flood(server: ServerProcess, num: int) -> Iterator[list[Raw]]:
    """Connections that bring nothing."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(raw(server)) for _ in range(num)]


def split(connections: list[Raw]) -> tuple[list[Raw], list[bytes]]:
    """Those that are taken, and what the others were told."""
    taken, told = [], []
    for connection in connections:
        connection.socket.settimeout(0.05)
        try:
            told.append(connection.rest())
        except TimeoutError:
            taken.append(connection)
        connection.socket.settimeout(30)
    return taken, told


def generate(connection: Raw, **fields: Any) -> int:
    body = json.dumps({"model": "grey", "seeds": [1, 2, 3], **fields}).encode()
    head = f"POST /v1/generate HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.send(head.encode() + body)
    return connection.answer().status


@pytest.mark.parametrize("num_processes", [1, 2])
def test_at_the_limit_connections_are_refused_in_words_and_requests_go_on(
    tiny_repository: Path, start_server: Callable[..., ServerProcess], num_processes: int
) -> None:
    server = start_server(
        tiny_repository, "--api-processes", str(num_processes), prefix=limited(LIMIT)
    )
    with raw(server) as early, flood(server, 400) as connections:
        assert generate(early) == 200  # the first images of all, at the limit
        taken, told = split(connections)
        assert taken
        assert told
        refused = [answer for answer in told if answer.startswith(b"HTTP/1.1 503 ")]
        assert len(refused) > len(told) * 0.9
        assert b"connection: close" in refused[0]
        assert b"retry-after: 1" in refused[0]
        assert b"urn:saddlepoint:problem:unavailable" in refused[0]
        for connection in taken[:3]:
            assert generate(connection) == 200
            connection.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            assert REFUSED.encode() in connection.answer().body
    wait_for(lambda: server.generate(model="grey", seeds=[1]).status_code == 200)
    assert metric(server, REFUSED) >= len(refused)
    for name in ("saddlepoint_rows_waiting", "saddlepoint_rows_in_flight"):
        wait_for(lambda name=name: metric(server, name) == 0)  # type: ignore[misc]
    wait_for(lambda: "no file descriptors are left" in server.log.read_text())
    lines = server.log.read_text().count("no file descriptors are left")
    assert lines <= 2 * num_processes  # not one for each
    assert server.stop() == 0


def test_a_limit_that_sinks_while_it_runs_is_said_and_survived(
    tiny_repository: Path, start_server: Callable[..., ServerProcess]
) -> None:
    """To what is in use: not one more descriptor can be had, but for those that are spare."""
    server = start_server(tiny_repository)
    (pid,) = http_processes_of(server)
    hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    with raw(server) as early:
        assert generate(early) == 200
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (_first_free(pid), hard[1]))
        wait_for(lambda: _is_refused(server))
        assert generate(early, seeds=list(range(20)), format="png") == 200
        resource.prlimit(pid, resource.RLIMIT_NOFILE, hard)
        wait_for(lambda: _is_answered(server))
    assert metric(server, REFUSED) > 0
    wait_for(lambda: "no file descriptors are left" in server.log.read_text())


def test_a_limit_below_all_that_is_in_use_is_said_and_survived(
    tiny_repository: Path, start_server: Callable[..., ServerProcess]
) -> None:
    """Nothing can be taken then, and so nothing be refused; who is there is answered."""
    server = start_server(tiny_repository)
    (pid,) = http_processes_of(server)
    hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    with raw(server) as early, raw(server) as late:
        assert generate(early) == 200
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard[1]))
        wait_for(lambda: "no file can be opened" in server.log.read_text())
        with raw(server) as waiting:
            waiting.send(b"GET /livez HTTP/1.0\r\n\r\n")
            assert generate(early, seeds=list(range(20)), format="png") == 200
            assert generate(late) == 200
            resource.prlimit(pid, resource.RLIMIT_NOFILE, hard)
            wait_for(lambda: _is_answered(server))
            assert waiting.rest()[9:12] in (b"200", b"503", b"")


def _first_free(pid: int) -> int:
    used = {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    return next(number for number in range(len(used) + 1) if number not in used)


def _is_refused(server: ServerProcess) -> bool:
    with raw(server) as connection:
        connection.socket.settimeout(1)
        with contextlib.suppress(TimeoutError):
            return connection.rest().startswith(b"HTTP/1.1 503 ")
    return False


def _is_answered(server: ServerProcess) -> bool:
    with raw(server) as connection:
        connection.send(b"GET /livez HTTP/1.0\r\n\r\n")
        return connection.rest().startswith(b"HTTP/1.1 200 ")


def test_the_limit_is_raised_to_what_is_allowed(
    tiny_repository: Path, start_server: Callable[..., ServerProcess]
) -> None:
    server = start_server(tiny_repository, prefix=("prlimit", "--nofile=256:4096"))
    for pid in (server.process.pid, *http_processes_of(server), *workers_of(server)):
        assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (4096, 4096)
    with flood(server, 600) as connections:
        assert generate(connections[-1]) == 200


def test_who_brings_nothing_makes_room_in_time(
    tiny_repository: Path, start_server: Callable[..., ServerProcess]
) -> None:
    server = start_server(tiny_repository, "--read-timeout-s", "1", prefix=limited(LIMIT))
    with flood(server, 200):
        began = time.monotonic()
        wait_for(lambda: _is_answered(server))
        assert time.monotonic() - began < 20


def test_a_worker_at_its_limit_goes_on_with_what_it_has(
    tiny_repository: Path, start_server: Callable[..., ServerProcess]
) -> None:
    server = start_server(tiny_repository, "--reload-interval-s", "0.1")
    assert server.generate(model="grey", seeds=[1]).status_code == 200
    (pid,) = workers_of(server)
    hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (4, hard[1]))
    began = time.monotonic()
    while time.monotonic() - began < 1:
        response = server.generate(model="grey", seeds=[1, 2, 3])
        assert response.status_code == 200, response.text
    resource.prlimit(pid, resource.RLIMIT_NOFILE, hard)
    assert server.generate(model="grey", version=1, seeds=[1]).status_code == 200
    wait_for(lambda: metric(server, "saddlepoint_rows_in_flight") == 0)
