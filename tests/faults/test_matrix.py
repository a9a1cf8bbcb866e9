"""The fault matrix: every loop of a server times every kind of exception, in real processes.

While a fault is thrown in, requests may fail, but are answered; afterwards everything works:
requests, a scrape, a publish, a rollback, a load, an unload, and the death of a worker.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from models.bundle import Bundle
from models.repository import Repository
from tests.conftest import ServerProcess, server_process
from tests.faults.injected.sitecustomize import TARGETS
from tests.serving.conftest import make_key
from tests.support import wait_for, workers_of

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1200)]

KINDS = (
    *("EIO", "EMFILE", "ENOSPC", "ESTALE", "EACCES", "ENOENT"),
    *("MemoryError", "foreign", "foreign BaseException"),
)
STATUSES = (200, 404, 503, 504)
WELL_S = 60


@dataclass
class Injected:
    """A server, and the folder by which exceptions are thrown into it."""

    server: ServerProcess
    repository: Repository
    faults: Path
    key: str
    bundles: list[Bundle]
    num_requests: int = 0

    def throw(self, name: str, kind: str) -> None:
        (self.faults / name).write_text(kind)

    def end(self, name: str) -> None:
        (self.faults / name).unlink()

    def num_thrown(self, name: str) -> int:
        path = self.faults / f"{name}.thrown"
        return path.stat().st_size if path.exists() else 0

    def ask(self, path: str = "/v1/generate", method: str = "POST", **body: Any) -> Any:
        headers = {"authorization": f"Bearer {self.key}", "x-request-timeout-ms": "10000"}
        if method == "GET":
            return self.server.get(path, headers=headers)
        return self.server.post(path, json=body, headers=headers)

    def generate(self) -> Any:
        self.num_requests += 1
        response = self.ask(model="tiny", seeds=[self.num_requests])
        assert response.status_code in STATUSES, response.text
        return response

    def is_well(self) -> bool:
        return bool(
            self.ask("/readyz", "GET").status_code == 200 and self.generate().status_code == 200
        )

    def metric(self, name: str) -> float:
        lines = self.ask("/metrics", "GET").text.splitlines()
        return sum(float(x.split()[-1]) for x in lines if x.startswith((name + " ", name + "{")))

    def serves(self, version: int) -> bool:
        response = self.generate()
        return response.headers.get("x-model-version") == str(version)


@pytest.fixture(scope="module")
def injected(
    make_bundle: Callable[..., Bundle], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Injected]:
    folder = tmp_path_factory.mktemp("matrix")
    repository, faults = Repository(folder / "models"), folder / "faults"
    faults.mkdir()
    bundles = [make_bundle(weights_seed=seed) for seed in range(2)]
    repository.publish("tiny", bundles[0])
    key = make_key(folder / "keys", "alice", "--scopes", "generate,admin,metrics")
    flags = {
        "api-keys": folder / "keys",
        "reload-interval-s": 0.2,
        "worker-timeout-s": 2,
        "model-control": "clients",
        "cache-bytes": 0,
        "compute-lanes": 2,
    }
    given = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent / "injected"))
        patch.setenv("FAULTS_FOLDER", str(faults))
        patch.setenv("FAULTS_LAST_PAUSE_S", "0.4")
        with server_process(repository.root, folder, *given) as server:
            yield Injected(server, repository, faults, key, bundles)


def provoke_once(injected: Injected, name: str) -> None:
    """Kills the worker where only another one comes to where the exception is thrown."""
    if name in ("restart", "connection", "taking up"):
        for worker in workers_of(injected.server):
            os.kill(worker, signal.SIGKILL)


def provoke(injected: Injected, name: str) -> None:
    """Does what makes the server come to where the exception is thrown."""
    if name == "loading":
        injected.repository.publish("tiny", injected.bundles[0])
    if name == "look-up":
        versions = injected.repository.versions("tiny")
        if len(versions) < 10:
            injected.repository.publish("tiny", injected.bundles[0], make_current=False)
        injected.ask(model="tiny", seeds=[1], version=injected.repository.versions("tiny")[-1])
    if name == "announce":
        injected.repository.publish("tiny", injected.bundles[0])
    injected.generate()


@pytest.mark.parametrize("name", TARGETS)
def test_every_loop_goes_on_whatever_is_thrown_in(injected: Injected, name: str) -> None:
    wait_for(injected.is_well, WELL_S)
    for kind in KINDS:
        before = injected.num_thrown(name)
        injected.throw(name, kind)
        try:
            provoke_once(injected, name)
            until = time.monotonic() + 60
            while injected.num_thrown(name) == before:
                assert time.monotonic() < until, f"{name}: {kind} was never thrown"
                provoke(injected, name)
                time.sleep(0.02)
            injected.generate()
        finally:
            injected.end(name)
        wait_for(injected.is_well, WELL_S)
    check_everything(injected)


def check_everything(injected: Injected) -> None:
    """What an operator does next."""
    assert "saddlepoint_http_requests_total" in injected.ask("/metrics", "GET").text
    repository = injected.repository
    version = repository.publish("tiny", injected.bundles[1]).manifest.version
    wait_for(lambda: injected.serves(version), WELL_S)
    before = repository.rollback("tiny").version
    wait_for(lambda: injected.serves(before), WELL_S)
    assert injected.ask("/v2/repository/models/tiny/unload").status_code == 200
    assert injected.generate().status_code == 404
    assert injected.ask("/v2/repository/models/tiny/load").status_code == 200
    assert injected.generate().status_code == 200
    restarts = injected.metric("saddlepoint_worker_restarts_total")
    (worker,) = workers_of(injected.server)
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: injected.metric("saddlepoint_worker_restarts_total") > restarts, WELL_S)
    wait_for(injected.is_well, WELL_S)
    for name in ("in_flight", "waiting"):
        wait_for(lambda n=name: injected.metric(f"saddlepoint_rows_{n}") == 0)  # type: ignore[misc]
    failing = "saddlepoint_loop_failing_since_timestamp_seconds"
    wait_for(lambda: injected.metric(failing) == 0, WELL_S)
