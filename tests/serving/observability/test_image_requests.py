"""By whose fault requests for images fail, which is what the objective counts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.bundle import Bundle
from models.repository import Repository
from serving.command_line import parse
from serving.errors import Problem, problems
from serving.requests.deadlines import TIMEOUT, read_scheduling
from tests.support import metric, wait_for

FAULTS = ("none", "client", "server")


@pytest.fixture
def repository(make_bundle: Callable[..., Bundle], tmp_path: Path) -> Repository:
    """Version 1 is served, version 2 is damaged."""
    repository = Repository(tmp_path / "models")
    repository.publish("tiny", make_bundle())
    damaged = repository.publish("tiny", make_bundle(weights_seed=2), make_current=False)
    damaged.model_path.write_bytes(b"damaged")
    return repository


def counts(server: Any) -> dict[str, float]:
    return {
        fault: metric(server, f'saddlepoint_image_requests_total{{fault="{fault}"}}')
        for fault in FAULTS
    }


def test_what_a_client_brings_about_does_not_count_against_the_service(
    repository: Repository, start_server: Callable[..., Any]
) -> None:
    server = start_server(repository.root, "--cache-bytes", "0")
    text = server.get("/metrics").text
    for fault in FAULTS:
        assert f'saddlepoint_image_requests_total{{fault="{fault}"}} 0.0' in text
    for kind in problems():
        assert f'saddlepoint_requests_rejected_total{{reason="{kind.slug}"}} ' in text
    for name in ("rows_generated_total", "compute_seconds_sum"):
        assert f'saddlepoint_{name}{{model="tiny",version="1"}} 0.0' in text

    assert server.generate(seeds=[1]).status_code == 200
    assert server.get("/v1/models/tiny/images/1.png").status_code == 200
    wait_for(lambda: counts(server) == {"none": 2, "client": 0, "server": 0})

    infer = {"inputs": [{"name": "SEED", "datatype": "UINT64", "shape": [1], "data": [1]}]}
    hurry = {"X-Request-Timeout-Ms": "1"}
    expected = {
        404: server.generate(model="nobody", seeds=[1]),
        400: server.generate(seeds=[]),
        409: server.generate(version=2, seeds=[1]),
        504: server.post("/v1/generate", json={"seeds": list(range(1000))}, headers=hurry),
    }
    more = {
        404: server.get("/v1/models/nobody/images/1.png"),
        409: server.post("/v2/models/tiny/versions/2/infer", json=infer),
        400: server.post("/predict", content=b"{"),
        504: server.post("/predict", json={"seeds": list(range(1000))}, headers=hurry),
    }
    for answers in (expected, more):
        assert {status: answer.status_code for status, answer in answers.items()} == {
            status: status for status in answers
        }
    wait_for(lambda: counts(server) == {"none": 2, "client": 8, "server": 0})


def test_what_the_service_fails_at_counts(
    repository: Repository, start_server: Callable[..., Any]
) -> None:
    flags = ("--request-timeout-ms", "1", "--max-waiting-rows", "1024", "--cache-bytes", "0")
    server = start_server(repository.root, *flags)
    assert server.generate(seeds=list(range(1000))).status_code == 504
    wait_for(lambda: counts(server)["server"] >= 1)


@pytest.mark.parametrize("allowed_ms", [None, 1, 499, 500, 30_000])
def test_a_deadline_is_the_clients_own_below_what_is_promised(allowed_ms: int | None) -> None:
    settings = parse(["--promised-ms", "500"], {})
    headers = {} if allowed_ms is None else {TIMEOUT: b"%d" % allowed_ms}
    problem = read_scheduling(headers.get, settings).problem()
    assert problem.status == 504
    assert problem.is_clients is (allowed_ms is not None and allowed_ms < 500)


def test_a_class_says_whose_fault_it_is() -> None:
    clients = {kind.slug for kind in problems() if kind.is_clients}
    servers = {kind.slug for kind in problems()} - clients
    assert servers == {Problem.slug, "overloaded", "unavailable", "deadline-exceeded"}
