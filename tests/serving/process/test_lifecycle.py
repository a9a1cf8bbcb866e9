"""Start, reload and end of a real server: processes, signals, files."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from models.bundle import Bundle
from models.repository import Repository
from tests.support import http_processes_of, metric, wait_for, workers_of


def processes_of(group: int) -> list[int]:
    """Living processes of a session, from /proc."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[3]) == group and fields[0] != "Z":
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_0_and_leaves_nothing(
    tiny_repository: Path, start_server: Callable[..., Any], tmp_path: Path, number: int
) -> None:
    server = start_server(tiny_repository)
    assert server.generate(model="grey", seeds=[1]).status_code == 200
    assert list(tmp_path.glob("saddlepoint-*"))
    assert server.stop(number) == 0, server.log.read_text()
    wait_for(lambda: not processes_of(server.process.pid))
    assert not list(tmp_path.glob("saddlepoint-*"))


def test_requests_that_were_received_are_answered_when_it_is_told_to_stop(
    tiny_repository: Path, start_server: Callable[..., Any]
) -> None:
    server = start_server(tiny_repository, "--max-batch-rows", "1")
    port = int(server.url.rpartition(":")[2])
    body = json.dumps({"model": "colour", "seeds": [1] * 500, "labels": 0, "format": "npy"})
    connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=30) for _ in range(8)]
    for connection in connections:
        connection.request("POST", "/v1/generate", body)
    # Connections are accepted in order: once this one is answered, those before were read.
    assert metric(server, "saddlepoint_rows_waiting") > 0
    assert server.stop() == 0
    for connection in connections:
        with contextlib.closing(connection), connection.getresponse() as response:
            assert response.status == 200
            assert len(response.read()) > 500 * 16 * 16 * 3


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_as_pid_1_it_ends_on_sigterm(
    tiny_repository: Path, start_server: Callable[..., Any]
) -> None:
    """The kernel drops signals that PID 1 of a namespace has no handler for."""
    unshare = ["unshare", "--pid", "--fork"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("making a PID namespace is not permitted here")
    server = start_server(tiny_repository, prefix=unshare)
    (first,) = children_of(server.process.pid)
    assert Path(f"/proc/{first}/status").read_text().count("NSpid:") == 1
    os.kill(first, signal.SIGTERM)
    assert server.process.wait(30) == 0, server.log.read_text()


def test_a_new_version_is_served_without_a_failed_request(
    make_bundle: Callable[..., Bundle], tmp_path: Path, start_server: Callable[..., Any]
) -> None:
    repository = Repository(tmp_path / "models")
    repository.publish("tiny", make_bundle(weights_seed=0))
    server = start_server(repository.root, "--reload-interval-s", "0.05")
    versions: list[str] = []
    stop = False

    def ask() -> None:
        while not stop:
            response = server.generate(seeds=[3])
            assert response.status_code == 200, response.text
            versions.append(response.headers["x-model-version"])

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        try:
            for weights_seed in (1, 2):
                version = repository.publish("tiny", make_bundle(weights_seed=weights_seed))
                number = str(version.manifest.version)
                wait_for(lambda number=number: versions[-1:] == [number])  # type: ignore[misc]
            repository.rollback("tiny")
            wait_for(lambda: versions[-1:] == ["2"])
        finally:
            stop = True
        for asked in asking:
            asked.result()


def test_a_corrupt_version_is_refused_and_the_old_one_serves_on(
    make_bundle: Callable[..., Bundle], tmp_path: Path, start_server: Callable[..., Any]
) -> None:
    repository = Repository(tmp_path / "models")
    repository.publish("tiny", make_bundle())
    server = start_server(repository.root, "--reload-interval-s", "0.05")
    corrupt = repository.publish("tiny", make_bundle(weights_seed=9), make_current=False)
    with corrupt.model_path.open("r+b") as model:
        model.write(b"\0\0\0\0")
    (repository.root / "tiny" / "CURRENT").write_text("2\n")
    wait_for(lambda: "sha256" in server.log.read_text())
    response = server.generate(seeds=[1])
    assert (response.status_code, response.headers["x-model-version"]) == (200, "1")
    asked = server.generate(seeds=[1], version=2)
    assert asked.status_code == 409
    assert "sha256" in asked.json()["detail"]
    refused = 'saddlepoint_model_loads_total{model="tiny",result="refused"}'
    assert metric(server, refused) >= 1


def test_an_empty_repository_is_alive_not_ready_and_comes_up_by_itself(
    make_bundle: Callable[..., Bundle], tmp_path: Path, start_server: Callable[..., Any]
) -> None:
    root = tmp_path / "models"
    server = start_server(root, "--reload-interval-s", "0.05", ready=False)
    server.wait_until("/livez", 200)
    first = server.log.read_text().splitlines()[0]
    assert (
        f"nothing can be served yet: {root}: No such file or directory; mount or make it" in first
    )
    # Clients are not told where it lies.
    assert "nothing can be served yet: the repository: No such file" in readiness(server)
    root.mkdir()
    assert "nothing can be served yet: the repository: holds no models" in readiness(server)
    wait_for(lambda: server.generate(seeds=[1]).status_code == 503)
    Repository(root).publish("tiny", make_bundle())
    server.wait_until("/readyz", 200)
    assert server.generate(seeds=[1]).status_code == 200


def readiness(server: Any) -> str:
    """Why it isn't ready."""
    response = server.get("/readyz")
    assert response.status_code == 503
    detail: str = response.json()["detail"]
    return detail


def test_an_empty_repository_is_said_first(
    tmp_path: Path, start_server: Callable[..., Any]
) -> None:
    server = start_server(tmp_path, "--log-format", "json", ready=False)
    server.wait_until("/livez", 200)
    first = json.loads(server.log.read_text().splitlines()[0])
    assert first["level"] == "error"
    assert f"{tmp_path}: holds no models" in first["message"]
    assert first["message"].endswith("it is looked for every 1 s")


def test_what_is_wrong_with_the_only_model_is_said_where_one_looks(
    make_bundle: Callable[..., Bundle], tmp_path: Path, start_server: Callable[..., Any]
) -> None:
    repository = Repository(tmp_path / "models")
    bundle = repository.publish("tiny", make_bundle())
    whole = bundle.model_path.read_bytes()
    bundle.model_path.write_bytes(whole[:-1])
    flags = ("--model-control", "clients", "--workers-per-device", "2", "--api-processes", "2")
    server = start_server(repository.root, *flags, ready=False)
    server.wait_until("/livez", 200)
    words = "model.onnx: holds"

    def is_said() -> bool:
        named = server.generate(model="tiny", seeds=[1])
        (entry,) = server.post("/v2/repository/index").json()
        return (
            words in server.get("/readyz").text
            and named.status_code == 503
            and "model 'tiny' is refused" in named.json()["detail"]
            and entry["state"] == "UNAVAILABLE"
            and words in entry["reason"]
        )

    # Each HTTP process hears of it from the workers; which one answers is chance.
    wait_for(lambda: all(is_said() for _ in range(10)))
    bundle.model_path.write_bytes(whole)
    assert server.post("/v2/repository/models/tiny/load").status_code == 200
    wait_for(lambda: all(server.get("/readyz").status_code == 200 for _ in range(10)))


def test_it_is_ready_once_each_of_its_processes_is(
    make_bundle: Callable[..., Bundle], tmp_path: Path, start_server: Callable[..., Any]
) -> None:
    """A connection may be anyone's, so the first to have a model waits for the last."""
    repository = Repository(tmp_path / "models")
    flags = ("--api-processes", "2", "--reload-interval-s", "0.1")
    server = start_server(repository.root, *flags, ready=False)
    server.wait_until("/livez", 200)
    wait_for(lambda: len(http_processes_of(server)) == 2)
    last = http_processes_of(server)[0]
    os.kill(last, signal.SIGSTOP)
    repository.publish("tiny", make_bundle())
    wait_for(lambda: server.generate(model="tiny", seeds=[1]).status_code == 200)
    early = server.get("/readyz")
    assert early.status_code == 503
    assert "another HTTP process of this server is still starting" in early.text
    os.kill(last, signal.SIGCONT)
    server.wait_until("/readyz", 200)
    for _ in range(10):
        assert server.generate(model="tiny", seeds=[1]).status_code == 200
    assert server.log.read_text().count("Serving tiny") == 1


def test_a_killed_worker_comes_back(
    tiny_repository: Path, start_server: Callable[..., Any]
) -> None:
    server = start_server(tiny_repository)
    before = server.generate(model="grey", seeds=[5]).content
    (worker,) = workers_of(server)
    os.kill(worker, signal.SIGKILL)
    server.wait_until("/readyz", 503)
    server.wait_until("/readyz", 200)
    assert server.generate(model="grey", seeds=[5]).content == before
    assert metric(server, "saddlepoint_worker_restarts_total") == 1


def test_a_killed_http_process_ends_the_server_with_an_error(
    tiny_repository: Path, start_server: Callable[..., Any]
) -> None:
    server = start_server(tiny_repository)
    (http_process,) = http_processes_of(server)
    os.kill(http_process, signal.SIGKILL)
    assert server.process.wait(30) == 1
    wait_for(lambda: not processes_of(server.process.pid))


def test_nothing_outlives_a_killed_parent(
    tiny_repository: Path, start_server: Callable[..., Any]
) -> None:
    server = start_server(tiny_repository)
    server.process.send_signal(signal.SIGKILL)
    server.process.wait(10)
    wait_for(lambda: not processes_of(server.process.pid))


def test_a_port_in_use_is_named(
    tiny_repository: Path, start_server: Callable[..., Any], server: Any
) -> None:
    port = server.url.rpartition(":")[2]
    second = start_server(tiny_repository, "--port", port, ready=False)
    assert second.process.wait(30) != 0
    wait_for(lambda: port in second.log.read_text())


def test_more_models_than_may_be_in_memory_are_served_in_turn(
    tiny_repository: Path, start_server: Callable[..., Any]
) -> None:
    server = start_server(tiny_repository, "--max-loaded", "1")
    requests: list[dict[str, Any]] = [
        {"model": "grey", "seeds": [5]},
        {"model": "colour", "seeds": [5], "labels": 1},
        {"model": "grey", "seeds": [5], "version": 1},
    ]
    first = [server.generate(**request).content for request in requests]
    assert len(set(first)) == 3
    again = [server.generate(**request) for request in requests]
    assert [response.content for response in again] == first
    assert [response.headers["x-model-version"] for response in again] == ["2", "1", "1"]
    wait_for(lambda: "leaves memory: 1 may be in it" in server.log.read_text())


def test_only_the_models_that_were_named_are_served(
    tiny_repository: Path, start_server: Callable[..., Any]
) -> None:
    server = start_server(tiny_repository, "--models", "colour")
    listed = server.get("/v1/models").json()["models"]
    assert [model["name"] for model in listed] == ["colour"]
    assert server.generate(model="grey", seeds=[1]).status_code == 404
