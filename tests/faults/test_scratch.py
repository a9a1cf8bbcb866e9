"""The server's own folder: full, or swept by a cleaner at any moment, in part or whole."""

import asyncio
import contextlib
import functools
import itertools
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.bundle import Bundle
from models.repository import Repository
from tests.chaos.client import Connection, Load, closing, run
from tests.faults.small_disk import fill, small_disk
from tests.serving.conftest import make_key
from tests.support import HTTP, http_processes_of, metric, wait_for, workers_of

FLAGS = ("--reload-interval-s", "0.1", "--model-control", "clients", "--cache-bytes", "0")


@pytest.fixture
def repository(tmp_path: Path, make_bundle: Callable[..., Bundle]) -> Repository:
    """Two models: one that comes and goes, one that is unloaded and must stay so."""
    repository = Repository(tmp_path / "models")
    repository.publish("tiny", make_bundle())
    repository.publish("spare", make_bundle(weights_seed=7))
    return repository


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def all_works(server: Any, repository: Repository, bundle: Bundle) -> None:
    """A scrape, a publication, unloading, loading, and a worker's death."""
    assert server.process.poll() is None, server.log.read_text()
    restarts = metric(server, "saddlepoint_worker_restarts_total")
    assert server.generate(model="tiny", seeds=[1, 2], format="npy").status_code == 200
    published = repository.publish("tiny", bundle).manifest.version
    wait_for(lambda: version_of(server) == str(published))
    assert server.post("/v2/repository/models/spare/unload").status_code == 200
    assert server.generate(model="spare", seeds=[1]).status_code == 404
    assert server.post("/v2/repository/models/spare/load").status_code == 200
    assert server.generate(model="spare", seeds=[1]).status_code == 200
    os.kill(workers_of(server)[0], signal.SIGKILL)
    wait_for(lambda: metric(server, "saddlepoint_worker_restarts_total") == restarts + 1)
    server.wait_until("/readyz", 200)
    assert version_of(server) == str(published)
    # Callers may be asking all the while, so the gauges needn't be zero at the first look.
    wait_for(lambda: metric(server, "saddlepoint_rows_waiting") == 0)
    wait_for(lambda: metric(server, "saddlepoint_rows_in_flight") == 0)
    assert metric(server, "saddlepoint_rows_generated_total") > 0


def version_of(server: Any) -> str:
    response = server.generate(model="tiny", seeds=[3])
    assert response.status_code == 200, response.text
    version: str = response.headers["x-model-version"]
    return version


@contextlib.contextmanager
def under_load(server: Any) -> Iterator[Load]:
    """Eight connections ask all the time; every answer must be images."""
    load, numbers = Load(server.url), itertools.count()

    async def ask() -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(8):
                tasks.create_task(load.closed_loop(body))

    def body() -> bytes:
        return json.dumps({"model": "tiny", "seeds": [next(numbers) % 1000]}).encode()

    thread = threading.Thread(target=run, args=(ask(),))
    thread.start()
    try:
        yield load
    finally:
        load.going = False
        thread.join()


def of_every_kind(server: Any, repository: Repository, make_bundle: Callable[..., Bundle]) -> None:
    """Requests with labels of metrics that no process has counted yet: its files must grow."""
    names = [f"model-{number}-{'long' * 10}" for number in range(8)]
    for name in names:
        repository.publish(name, make_bundle(weights_seed=5))
    for name in names:
        wait_for(lambda name=name: server.generate(model=name, seeds=[1]).status_code == 200)  # type: ignore[misc]
        for request in ({"seeds": []}, {"seeds": [1], "format": "webp"}, {"labels": 3}):
            assert server.generate(model=name, **request).status_code < 500
        assert server.get(f"/v1/models/{name}/images/1.jpg").status_code == 200


@pytest.mark.parametrize("from_the_start", [False, True])
def test_a_full_disk(
    tmp_path: Path,
    repository: Repository,
    make_bundle: Callable[..., Bundle],
    start_server: Callable[..., Any],
    from_the_start: bool,
) -> None:
    with small_disk(tmp_path / "small") as disk:
        if from_the_start:
            fill(disk)
        server = start_server(
            repository.root, *FLAGS, "--max-loaded", "40", environ={"TMPDIR": str(disk)}
        )
        if not from_the_start:
            fill(disk)
        with under_load(server) as load:
            of_every_kind(server, repository, make_bundle)
            all_works(server, repository, make_bundle(weights_seed=1))
        assert load.count(200, 503) == len(load.answers), load.fates
        requests = metric(server, "saddlepoint_http_requests_total")
        assert requests > load.count(200)
        assert server.stop() == 0, server.log.read_text()
        assert not list(disk.glob("saddlepoint-*"))


def sweep_all(folder: Path) -> None:
    shutil.rmtree(folder)


def sweep_content(folder: Path) -> None:
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def sweep_files(folder: Path) -> None:
    """What an age-based cleaner does: files go, folders stay."""
    for path in folder.rglob("*"):
        if not path.is_dir():
            path.unlink()


def sweep_sockets(folder: Path) -> None:
    for path in folder.glob("*.sock"):
        path.unlink()


def empty_files(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            os.truncate(path, 0)


def holds(folder: Path, names: list[str]) -> bool:
    return folder.is_dir() and sorted(path.name for path in folder.iterdir()) == names


@pytest.mark.parametrize(
    "sweep", [sweep_all, sweep_content, sweep_files, sweep_sockets, empty_files]
)
def test_a_cleaner(
    scratch: Path,
    repository: Repository,
    make_bundle: Callable[..., Bundle],
    start_server: Callable[..., Any],
    sweep: Callable[[Path], None],
) -> None:
    repository.publish("gone", make_bundle(weights_seed=3))
    server = start_server(repository.root, *FLAGS, environ={"TMPDIR": str(scratch)})
    assert server.post("/v2/repository/models/gone/unload").status_code == 200
    with under_load(server) as load:
        for weights_seed in range(3):
            (folder,) = scratch.glob("saddlepoint-*")
            before = sorted(path.name for path in folder.iterdir())
            made = metric(server, "saddlepoint_rows_generated_total")
            sweep(folder)
            all_works(server, repository, make_bundle(weights_seed=weights_seed))
            wait_for(functools.partial(holds, folder, before))
            # Nothing that was counted is lost, and what was unloaded stays so.
            assert metric(server, "saddlepoint_rows_generated_total") >= made
            assert server.generate(model="gone", seeds=[1]).status_code == 404
    assert load.count(200, 503) == len(load.answers), load.fates
    assert server.post("/v2/repository/models/gone/load").status_code == 200
    assert server.generate(model="gone", seeds=[1]).status_code == 200
    assert server.stop() == 0, server.log.read_text()
    assert not list(scratch.iterdir())


def test_a_cleaner_while_it_starts(
    scratch: Path,
    repository: Repository,
    make_bundle: Callable[..., Bundle],
    start_server: Callable[..., Any],
) -> None:
    server = start_server(
        repository.root,
        *FLAGS,
        "--api-processes",
        "2",
        ready=False,
        environ={"TMPDIR": str(scratch)},
    )
    ready = False
    for _ in range(200):
        for folder in scratch.glob("saddlepoint-*"):
            shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(httpx.TransportError):
            ready = ready or server.get("/livez").status_code == 200
        if ready:
            break
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.process.wait(0.05)
    server.wait_until("/readyz", 200)
    all_works(server, repository, make_bundle(weights_seed=1))
    assert server.stop() == 0


def test_rates_and_readiness_of_two_processes(
    scratch: Path, tiny_repository: Path, start_server: Callable[..., Any]
) -> None:
    """What the HTTP processes share doesn't begin anew when a file goes."""
    keys = scratch / "keys"
    key = make_key(keys, "bob", "--rows-per-s", "0.001", "--burst", "6")
    flags = ("--api-keys", str(keys), "--api-processes", "2")
    server = start_server(tiny_repository, *flags, environ={"TMPDIR": str(scratch)})
    assert len(http_processes_of(server)) == 2

    seeds = itertools.count()  # what a cache answers is not charged

    def ask() -> int:
        response = HTTP.post(
            server.url + "/v1/generate",
            json={"model": "grey", "seeds": [next(seeds), next(seeds)]},
            headers={"authorization": f"Bearer {key}"},
            timeout=30,
        )
        return response.status_code

    statuses = []
    for _ in range(5):
        (folder,) = scratch.glob("saddlepoint-*")
        sweep_content(folder)
        statuses.append(ask())
    assert statuses == [200, 200, 200, 429, 429]
    for _ in range(10):
        assert server.get("/readyz").status_code == 200


def test_a_folder_that_cannot_be_made_again_ends_the_server_when_it_is_needed(
    scratch: Path, repository: Repository, start_server: Callable[..., Any]
) -> None:
    server = start_server(repository.root, *FLAGS, environ={"TMPDIR": str(scratch)})
    shutil.rmtree(scratch)
    scratch.write_text("something else is here now")
    assert server.generate(model="tiny", seeds=[1]).status_code == 200
    assert metric(server, "saddlepoint_rows_generated_total") > 0
    os.kill(workers_of(server)[0], signal.SIGKILL)
    assert server.process.wait(20) == 1
    wait_for(lambda: "can't be made again" in server.log.read_text())


def test_a_path_that_is_too_long_for_sockets_is_refused(
    tmp_path: Path, repository: Repository, start_server: Callable[..., Any]
) -> None:
    folder = tmp_path / ("long" * 25)
    folder.mkdir()
    server = start_server(repository.root, ready=False, environ={"TMPDIR": str(folder)})
    assert server.process.wait(30) == 2
    wait_for(lambda: "TMPDIR" in server.log.read_text())
    assert not list(folder.iterdir())


def test_the_connection_of_a_probe_survives_it(
    scratch: Path, repository: Repository, start_server: Callable[..., Any]
) -> None:
    server = start_server(repository.root, environ={"TMPDIR": str(scratch)})

    async def probe() -> set[int | str]:
        with closing(Connection(int(server.url.rpartition(":")[2]))) as connection:
            fates = {(await connection.ask(path="/metrics")).fate}
            for folder in scratch.glob("saddlepoint-*"):
                shutil.rmtree(folder)
            for _ in range(20):
                fates.add((await connection.ask(path="/metrics")).fate)
                fates.add((await connection.ask(path="/readyz")).fate)
            return fates

    assert run(probe()) == {200}
