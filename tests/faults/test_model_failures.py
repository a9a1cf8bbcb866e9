"""One model fails, in every way that a graph can: the others don't notice."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models.bundle import Bundle
from models.repository import Repository
from tests.faults.graphs import Change, changed, mixes_rows, not_at, only_at
from tests.support import metric, wait_for

ANSWERED_S = 10
FAULTS: dict[str, Change] = {
    "one batch size": only_at(8),
    "fails at 3": not_at(3),
    "another shape at 7": not_at(7),
    "another shape at 13": not_at(13),
    "fails at 64": not_at(64),
    "mixes rows": mixes_rows,
}
UNLOADABLE = ("one batch size", "fails at 64")


def publish(
    repository: Repository, name: str, bundle: Bundle, folder: Path, change: Change, **kwargs: Any
) -> Bundle:
    return repository.publish(name, changed(bundle, folder, change), **kwargs)


def assert_fit_for_clients(text: str, repository: Path) -> None:
    """Neither a path of this machine nor a runtime's own words."""
    assert str(repository) not in text
    assert str(repository.parent) not in text
    for word in ("ONNXRuntime", "onnxruntime", "Non-zero status", "Traceback", ".cc:", ".h:"):
        assert word not in text, text


@pytest.mark.parametrize("fault", FAULTS)
def test_verify_tries_every_batch_that_a_server_runs(
    make_bundle: Callable[..., Bundle], tmp_path: Path, fault: str
) -> None:
    repository = Repository(tmp_path / "models")
    repository.publish("good", make_bundle())
    publish(repository, "bad", make_bundle(), tmp_path / "bad", FAULTS[fault])
    command = [sys.executable, "-m", "models.repository", "--repository", str(repository.root)]
    done = subprocess.run([*command, "verify", "--json"], capture_output=True, text=True)
    assert done.returncode == 4
    found = {entry["model"]: entry for entry in json.loads(done.stdout)["versions"]}
    assert found["good"]["ok"]
    assert not found["bad"]["ok"]
    assert "batch" in found["bad"]["refused"]


@pytest.fixture
def repository(make_bundle: Callable[..., Bundle], tmp_path: Path) -> Repository:
    """good, and bad whose versions 2 .. are faulty, in the order of UNLOADABLE."""
    repository = Repository(tmp_path / "models")
    repository.publish("good", make_bundle(weights_seed=1))
    repository.publish("bad", make_bundle(weights_seed=2))
    for number, fault in enumerate(UNLOADABLE):
        folder = tmp_path / f"bad-{number}"
        publish(
            repository,
            "bad",
            make_bundle(weights_seed=9),
            folder,
            FAULTS[fault],
            make_current=False,
        )
    return repository


def ask(server: Any, **request: Any) -> Any:
    """An answer, which must come soon."""
    began = time.monotonic()
    response = server.generate(**request)
    assert time.monotonic() - began < ANSWERED_S
    return response


def test_versions_that_fail_on_demand_cost_nobody_else(
    repository: Repository, start_server: Callable[..., Any]
) -> None:
    server = start_server(repository.root, "--cache-bytes", "0")
    for version in (2, 3):
        for seed in range(6):
            refused = ask(server, model="bad", version=version, seeds=[seed])
            assert refused.status_code == 409
            assert f"version {version}" in refused.json()["detail"]
            assert_fit_for_clients(refused.text, repository.root)
    for seed in range(6):
        assert ask(server, model="good", seeds=[seed]).status_code == 200
        assert ask(server, model="bad", seeds=[seed]).status_code == 200
    assert server.get("/readyz").status_code == 200
    wait_for(lambda: metric(server, "saddlepoint_rows_in_flight") == 0)
    assert metric(server, "saddlepoint_worker_restarts_total") == 0


def test_a_refused_version_is_not_loaded_at_every_request(
    repository: Repository, start_server: Callable[..., Any]
) -> None:
    server = start_server(repository.root)
    for _ in range(20):
        assert ask(server, model="bad", version=2, seeds=[1]).status_code == 409
    tries = metric(server, 'saddlepoint_model_loads_total{model="bad",result="refused"}')
    assert 1 <= tries <= 6
    # Its files change: it is tried at once.
    whole = repository.bundle("bad", 1)
    folder = repository.bundle_path("bad", 2)
    for name in whole.manifest.files:
        folder.joinpath(name).write_bytes(whole.path.joinpath(name).read_bytes())
    manifest = (whole.path / "manifest.json").read_text()
    (folder / "manifest.json").write_text(manifest.replace('"version": 1,', '"version": 2,'))
    wait_for(lambda: server.generate(model="bad", version=2, seeds=[1]).status_code == 200, 10)


def test_made_current_it_is_refused_and_later_publishes_are_served(
    repository: Repository, make_bundle: Callable[..., Bundle], start_server: Callable[..., Any]
) -> None:
    server = start_server(repository.root, "--reload-interval-s", "0.1")
    for version in (2, 3):
        (repository.root / "bad" / "CURRENT").write_text(f"{version}\n")
        wait_for(lambda v=version: f"/bad/{v}/model.onnx" in server.log.read_text())  # type: ignore[misc]
        answer = ask(server, model="bad", seeds=[1])
        assert (answer.status_code, answer.headers["x-model-version"]) == (200, "1")
    repository.publish("good", make_bundle(weights_seed=5))
    wait_for(lambda: ask(server, model="good", seeds=[1]).headers["x-model-version"] == "2", 10)
    repository.publish("bad", make_bundle(weights_seed=5))
    wait_for(lambda: ask(server, model="bad", seeds=[1]).headers["x-model-version"] == "4", 10)
    assert metric(server, "saddlepoint_worker_restarts_total") == 0


def test_at_start_the_others_are_served(
    repository: Repository, make_bundle: Callable[..., Bundle], start_server: Callable[..., Any]
) -> None:
    (repository.root / "bad" / "CURRENT").write_text("2\n")
    server = start_server(repository.root, "--reload-interval-s", "0.1")
    assert ask(server, model="good", seeds=[1]).status_code == 200
    refused = ask(server, model="bad", seeds=[1])
    assert refused.status_code == 503
    assert_fit_for_clients(refused.text, repository.root)
    assert metric(server, "saddlepoint_worker_restarts_total") == 0
    (repository.root / "bad" / "CURRENT").write_text("1\n")
    wait_for(lambda: ask(server, model="bad", seeds=[1]).status_code == 200, 10)


def test_where_nothing_can_be_served_readiness_says_so(
    make_bundle: Callable[..., Bundle], tmp_path: Path, start_server: Callable[..., Any]
) -> None:
    repository = Repository(tmp_path / "models")
    publish(repository, "bad", make_bundle(), tmp_path / "bad", only_at(8))
    server = start_server(repository.root, "--reload-interval-s", "0.1", ready=False)
    server.wait_until("/livez", 200)
    wait_for(lambda: "model bad" in server.get("/readyz").text)
    answer = server.get("/readyz")
    assert answer.status_code == 503
    assert_fit_for_clients(answer.text, repository.root)
    repository.publish("good", make_bundle())
    server.wait_until("/readyz", 200, 10)


def test_a_model_that_ends_every_worker_that_loads_it_costs_the_others_little(
    make_bundle: Callable[..., Bundle],
    tmp_path: Path,
    start_server: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A crash of the runtime, or more memory than there is: no exception, the process is gone."""
    repository = Repository(tmp_path / "models")
    for name in ("good", "deadly", "zzz"):
        repository.publish(name, make_bundle(weights_seed=1))
    faults = tmp_path / "faults"
    faults.mkdir()
    (faults / "loading").write_text("death of deadly")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "injected"))
    monkeypatch.setenv("FAULTS_FOLDER", str(faults))
    flags = ("--reload-interval-s", "0.2", "--model-control", "clients")
    server = start_server(repository.root, *flags)
    for name in ("good", "zzz"):
        wait_for(lambda n=name: ask(server, model=n, seeds=[1]).status_code == 200)  # type: ignore[misc]
    wait_for(lambda: "the worker died 2 times while it loaded" in server.log.read_text(), 60)
    server.wait_until("/readyz", 200)
    restarts = metric(server, "saddlepoint_worker_restarts_total")
    until = time.monotonic() + 5
    while time.monotonic() < until:
        for name in ("good", "zzz"):
            assert ask(server, model=name, seeds=[1]).status_code == 200
    assert metric(server, "saddlepoint_worker_restarts_total") == restarts
    refused = ask(server, model="deadly", seeds=[1])
    assert refused.status_code == 503
    assert "the worker died" in refused.json()["detail"]
    assert_fit_for_clients(refused.text, repository.root)
    (faults / "loading").unlink()
    assert server.post("/v2/repository/models/deadly/load").status_code == 200
    assert ask(server, model="deadly", seeds=[1]).status_code == 200


@pytest.fixture(params=[5, 7], ids=["fails", "another shape"])
def odd(
    request: pytest.FixtureRequest, make_bundle: Callable[..., Bundle], tmp_path: Path
) -> Iterator[tuple[Repository, int]]:
    """A model that loads, and fails at one batch size only."""
    repository = Repository(tmp_path / "models")
    repository.publish("good", make_bundle(weights_seed=1))
    num_rows = request.param
    publish(repository, "odd", make_bundle(), tmp_path / "odd", not_at(num_rows))
    return repository, num_rows


def test_a_run_that_fails_answers_its_own_requests_alone(
    odd: tuple[Repository, int], start_server: Callable[..., Any]
) -> None:
    repository, num_rows = odd
    server = start_server(repository.root, "--cache-bytes", "0")
    # While none of its batches was made, nobody knows how long one takes: each leaves as a whole.
    for first in range(0, 60, 10):
        failed = ask(server, model="odd", seeds=list(range(first, first + num_rows)))
        assert failed.status_code == 503, failed.text
        assert "odd" in failed.json()["detail"]
        assert_fit_for_clients(failed.text, repository.root)
        assert ask(server, model="good", seeds=list(range(num_rows))).status_code == 200
    for seed in range(6):
        assert ask(server, model="odd", seeds=[seed]).status_code == 200
    wait_for(lambda: metric(server, "saddlepoint_rows_in_flight") == 0)
    wait_for(lambda: metric(server, "saddlepoint_rows_waiting") == 0)
