"""A worker that hangs, and one that only takes its time."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.bundle import Bundle
from models.repository import Repository
from tests.faults.graphs import changed, lasts
from tests.support import metric, wait_for, workers_of

pytestmark = pytest.mark.chaos

TIMEOUT_S = 2
FLAGS = ("--worker-timeout-s", str(TIMEOUT_S), "--cache-bytes", "0")
BACK_S = 30  # until another worker serves; most of it is Python's start under the tests' load


def test_a_stopped_worker_is_replaced(
    tiny_repository: Path, start_server: Callable[..., Any]
) -> None:
    server = start_server(tiny_repository, *FLAGS)
    before = server.generate(model="grey", seeds=[5]).content
    (worker,) = workers_of(server)
    began = time.monotonic()
    os.kill(worker, signal.SIGSTOP)
    held = server.generate(model="grey", seeds=[6])  # waits in it, or for the next one
    assert held.status_code in (200, 503)
    assert time.monotonic() - began < TIMEOUT_S + 20
    wait_for(lambda: worker not in workers_of(server), BACK_S)
    server.wait_until("/readyz", 200, BACK_S)
    assert server.generate(model="grey", seeds=[5]).content == before
    assert metric(server, "saddlepoint_worker_hangs_total") == 1
    assert metric(server, "saddlepoint_worker_restarts_total") == 1
    wait_for(lambda: metric(server, "saddlepoint_rows_in_flight") == 0)
    wait_for(lambda: "has given no sign of life" in server.log.read_text())


def test_readiness_follows_a_stopped_worker(
    tiny_repository: Path, start_server: Callable[..., Any]
) -> None:
    server = start_server(tiny_repository, *FLAGS)
    (worker,) = workers_of(server)
    os.kill(worker, signal.SIGSTOP)
    server.wait_until("/readyz", 503, TIMEOUT_S + 20)
    server.wait_until("/readyz", 200, BACK_S)


def test_a_worker_that_hangs_before_its_first_heartbeat_is_replaced(
    tiny_repository: Path, start_server: Callable[..., Any]
) -> None:
    """Stopped as soon as it listens, and each that takes its place: a start has two minutes."""
    server = start_server(tiny_repository, *FLAGS, ready=False)
    for _ in range(2):
        wait_for(lambda: any(workers_of(server)))
        (worker,) = workers_of(server)
        wait_for(lambda worker=worker: listens(worker))
        os.kill(worker, signal.SIGSTOP)
        wait_for(lambda worker=worker: worker not in workers_of(server), BACK_S)
    server.wait_until("/readyz", 200, BACK_S)


def listens(pid: int) -> bool:
    """True where the process has a listening socket of its own, by the kernel's own tables."""
    sockets = set()
    for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
        with contextlib.suppress(OSError):
            sockets.add(os.readlink(descriptor))
    # num, count, protocol, flags, type, state, inode, path: the flag __SO_ACCEPTCON is 1 << 16
    rows = (line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:])
    return any(int(row[3], 16) & 1 << 16 and f"socket:[{row[6]}]" in sockets for row in rows)


def test_of_two_workers_the_other_one_goes_on(
    tiny_repository: Path, start_server: Callable[..., Any]
) -> None:
    server = start_server(tiny_repository, *FLAGS, "--workers-per-device", "2")
    wait_for(lambda: metric(server, "saddlepoint_worker_lanes") >= 2 * os.cpu_count())  # type: ignore[operator]
    stopped = workers_of(server)[0]
    os.kill(stopped, signal.SIGSTOP)
    until, answers = time.monotonic() + TIMEOUT_S + 8, []
    while time.monotonic() < until:
        answers.append(server.generate(model="grey", seeds=[len(answers)]))
        assert server.get("/readyz").status_code == 200
    # What the stopped one held was made by the other one.
    assert {answer.status_code for answer in answers} == {200}
    wait_for(lambda: stopped not in workers_of(server), BACK_S)


def test_load_and_unload_have_deadlines(
    tiny_repository: Path, start_server: Callable[..., Any]
) -> None:
    server = start_server(
        tiny_repository, "--model-control", "clients", "--worker-timeout-s", "3600"
    )
    (worker,) = workers_of(server)
    os.kill(worker, signal.SIGSTOP)
    for verb in ("unload", "load"):
        began = time.monotonic()
        answer = server.post(
            f"/v2/repository/models/grey/{verb}", headers={"x-request-timeout-ms": "1500"}
        )
        assert answer.status_code == 504
        assert "model 'grey' is not " in answer.json()["error"]
        assert time.monotonic() - began < 15
    os.kill(worker, signal.SIGCONT)
    wait_for(lambda: server.post("/v2/repository/models/grey/load").status_code == 200)
    assert server.generate(model="grey", seeds=[1]).status_code == 200


def test_load_and_unload_of_a_stopped_worker_are_answered(
    tiny_repository: Path, start_server: Callable[..., Any]
) -> None:
    server = start_server(tiny_repository, *FLAGS, "--model-control", "clients")
    (worker,) = workers_of(server)
    os.kill(worker, signal.SIGSTOP)
    assert server.post("/v2/repository/models/grey/unload").status_code in (200, 503)
    # The worker that takes its place knows of it.
    server.wait_until("/readyz", 200, BACK_S)
    wait_for(lambda: server.generate(model="grey", seeds=[1]).status_code in (404, 503))
    wait_for(lambda: server.post("/v2/repository/models/grey/load").status_code == 200)
    assert server.generate(model="grey", seeds=[1]).status_code == 200


@pytest.fixture
def sleepy(make_bundle: Callable[..., Bundle], tmp_path: Path) -> Path:
    """good, and sleepy, whose runs last as long as a latent says."""
    repository = Repository(tmp_path / "models")
    repository.publish("good", make_bundle(weights_seed=1))
    repository.publish("sleepy", changed(make_bundle(), tmp_path / "sleepy", lasts))
    return repository.root


def latents(turns: float) -> list[list[float]]:
    """So many turns of the loop."""
    return [[50 + turns / 1000, 0, 0, 0, 0, 0]]


def test_a_long_run_is_healthy(sleepy: Path, start_server: Callable[..., Any]) -> None:
    server = start_server(sleepy, *FLAGS)
    (worker,) = workers_of(server)
    for seed in range(30):  # which are quick
        assert server.generate(model="sleepy", seeds=[seed]).status_code == 200
    began, turns = time.monotonic(), 50_000.0
    assert server.generate(model="sleepy", latents=latents(turns)).status_code == 200
    turns *= 3 * TIMEOUT_S / (time.monotonic() - began)
    answers: list[Any] = []
    asking = threading.Thread(
        target=lambda: answers.append(server.generate(model="sleepy", latents=latents(turns)))
    )
    began = time.monotonic()
    asking.start()
    while asking.is_alive():  # and others go on meanwhile
        assert server.generate(model="good", seeds=[1]).status_code == 200
        assert server.get("/readyz").status_code == 200
    assert time.monotonic() - began > TIMEOUT_S
    assert answers[0].status_code == 200
    assert workers_of(server) == [worker]
    assert metric(server, "saddlepoint_worker_restarts_total") == 0


def test_runs_without_an_end_cost_a_restart(sleepy: Path, start_server: Callable[..., Any]) -> None:
    """As many as there are lanes: nothing else could ever be made."""
    server = start_server(sleepy, *FLAGS, "--request-timeout-ms", "3000", "--compute-lanes", "2")
    answers: list[Any] = []
    threads = [
        threading.Thread(
            target=lambda: answers.append(server.generate(model="sleepy", latents=latents(1e12)))
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} <= {503, 504}
    wait_for(lambda: metric(server, "saddlepoint_worker_restarts_total") >= 1, 60)
    server.wait_until("/readyz", 200, BACK_S)
    wait_for(lambda: server.generate(model="good", seeds=[1]).status_code == 200, BACK_S)
    wait_for(lambda: metric(server, "saddlepoint_rows_in_flight") == 0)
    wait_for(lambda: "this worker ends, and is started again" in server.log.read_text())
