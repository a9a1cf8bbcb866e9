"""Metrics of a real server: documented as they are, right over processes, deaths and restarts."""

import datetime
import functools
import json
import os
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from models.repository import Repository
from serving.observability import exposition, gpu_memory
from serving.observability.metrics import DESCRIBED
from serving.process.listening import bind
from tests.conftest import free_port
from tests.support import HTTP, http_processes_of, metric, wait_for, workers_of

DOCS = Path(__file__).parents[3] / "docs"


def families(text: str) -> dict[str, Metric]:
    """By the documented name: counters end in _total."""
    return {
        found.name + ("_total" if found.type == "counter" else ""): found
        for found in text_string_to_metric_families(text)
    }


def value(text: str, name: str, **labels: str) -> float:
    """The sum of a sample's values over the labels that aren't given."""
    return sum(
        sample.value
        for family in families(text).values()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def documented() -> dict[str, tuple[str, frozenset[str], str]]:
    """docs/metrics.md: type, labels and help of each metric."""
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+) \| ([^|]*) \| (.*) \|$", (DOCS / "metrics.md").read_text(), re.M
    )
    return {
        name: (kind, frozenset(re.findall(r"\w+", labels)), text)
        for name, kind, labels, text in rows
    }


def test_what_the_server_says_is_what_the_page_says(guarded: Any) -> None:
    guarded.post({"model": "grey", "seeds": [1]})
    guarded.post({"model": "grey", "seeds": ["x"]})
    wait_for(lambda: value(guarded.metrics(), "saddlepoint_requests_rejected_total") > 0)
    page, served = documented(), families(guarded.metrics())
    assert page.keys() == served.keys() == {entry.name for entry in DESCRIBED}
    for name, family in served.items():
        kind, labels, text = page[name]
        assert (family.type, family.documentation) == (kind, text), name
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == labels, name
    without = {name for name, family in served.items() if not family.samples}
    rare = ("gpu", "requests_failed", "since_timestamp", "saddlepoint_part_")
    assert without <= {name for name in served if any(word in name for word in rare)}


def test_names_follow_the_conventions() -> None:
    for entry in DESCRIBED:
        assert re.fullmatch(r"saddlepoint_[a-z_]+", entry.name), entry.name
        assert entry.name.endswith("_total") == (entry.kind == "counter"), entry.name
        assert not re.search(r"_(ms|kb|mb|percent)(_|$)", entry.name), entry.name


def test_all_processes_count_into_the_same_metrics(guarded: Any) -> None:
    def grown() -> list[float]:
        text = guarded.metrics()
        return [
            value(text, "saddlepoint_http_requests_total", route="/v1/generate", status="200"),
            value(text, "saddlepoint_http_request_duration_seconds_count", route="/v1/generate"),
            value(text, "saddlepoint_queue_wait_seconds_count"),
            value(text, "saddlepoint_encode_seconds_count", format="png"),
            value(text, "saddlepoint_rows_generated_total", model="grey", version="2"),
            value(text, "saddlepoint_batch_rows_sum"),
            value(text, "saddlepoint_rows_padded_total", model="grey"),
            value(text, "saddlepoint_requests_rejected_total", reason="invalid-request"),
        ]

    wait_for(lambda: grown() == grown())
    before = grown()
    asked = set()
    for pid in http_processes_of(guarded.server):
        with guarded.only(pid):
            for chunked in (False, True):
                response = guarded.post({"model": "grey", "seeds": [1]}, chunked=chunked)
                asked.add(response.headers["x-request-id"].partition("-")[0])
    guarded.post({"model": "grey", "seeds": []})
    num = 4
    assert len(asked) == 2
    # --buckets 8,64: a run of one row computes seven in vain. Of several rows, a machine that is
    # slow for a moment makes several runs.
    padding = 7 * num
    expected = [num, num + 1, num, num, num, num, padding, 1]
    wanted = [a + b for a, b in zip(before, expected, strict=True)]
    wait_for(lambda: grown() == wanted)
    text = guarded.metrics()
    compute = value(text, "saddlepoint_compute_seconds_count", model="grey")
    assert (
        0
        < compute
        == value(text, "saddlepoint_batch_rows_count")
        - value(text, "saddlepoint_compute_seconds_count", model="colour")
    )
    assert value(text, "saddlepoint_compute_seconds_sum") > 0
    wait_for(lambda: value(guarded.metrics(), "saddlepoint_rows_in_flight") == 0)


def test_every_process_shows_its_memory_and_time(guarded: Any) -> None:
    found = families(guarded.metrics())
    for name, least in (
        ("saddlepoint_process_resident_memory_bytes", 10e6),
        ("saddlepoint_process_cpu_seconds_total", 0.01),
        ("saddlepoint_process_start_time_seconds", 1e9),
    ):
        samples = found[name].samples
        roles = sorted(sample.labels["role"] for sample in samples)
        assert roles == ["http", "http", "main", "worker"]
        assert all(sample.value > least for sample in samples), name
        for sample in samples:
            assert Path("/proc", sample.labels["pid"]).exists()


def test_on_a_port_of_their_own_they_leave_the_other(guarded: Any) -> None:
    authorized = {"authorization": f"Bearer {guarded.key}"}
    assert guarded.server.get("/metrics", headers=authorized).status_code == 404
    assert "/metrics" not in guarded.server.get("/openapi.json").json()["paths"]
    page = HTTP.get(guarded.metrics_url)
    assert page.headers["content-type"].startswith("text/plain; version=")


def test_counters_survive_a_killed_worker(
    tiny_repository: Path, start_server: Callable[..., Any]
) -> None:
    server = start_server(tiny_repository, "--buckets", "8,64", "--cache-bytes", "0")
    last: dict[tuple[str, str], float] = {}

    def check() -> str:
        """Scrapes; no counter and no histogram may have gone backwards."""
        text: str = server.get("/metrics").text
        for family in families(text).values():
            for sample in family.samples:
                if family.type in ("counter", "histogram"):
                    key = (sample.name, json.dumps(sample.labels, sort_keys=True))
                    assert sample.value >= last.get(key, 0.0), key
                    last[key] = sample.value
        gone = last.keys() - {
            (sample.name, json.dumps(sample.labels, sort_keys=True))
            for family in families(text).values()
            for sample in family.samples
        }
        assert all("cpu_seconds" in name for name, _ in gone)  # a series a process
        return text

    for death in range(1, 3):
        assert server.generate(model="grey", seeds=[1]).status_code == 200
        check()
        (worker,) = workers_of(server)
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: metric(server, "saddlepoint_worker_restarts_total") == death)  # noqa: B023
        check()
        wait_for(lambda: workers_of(server) not in ([], [worker]))  # noqa: B023
        server.wait_until("/readyz", 200)
        text = check()
        assert value(text, "saddlepoint_rows_padded_total", model="grey") == 7 * death
        assert value(text, "saddlepoint_model_loads_total", result="loaded") == 2 * (death + 1)
        running = {
            sample.labels["pid"]
            for sample in families(text)["saddlepoint_process_start_time_seconds"].samples
            if sample.labels["role"] == "worker"
        }
        assert running == set(map(str, workers_of(server)))


def test_who_watches_sees_readiness_age_and_refusals(
    make_bundle: Callable[..., Any], start_server: Callable[..., Any], tmp_path: Path
) -> None:
    repository = Repository(tmp_path / "models")
    repository.publish("tiny", make_bundle())
    flags = ("--drain-delay-s", "30", "--reload-interval-s", "0.1", "--compute-lanes", "3")
    server = start_server(repository.root, *flags)

    def now(name: str, **labels: str) -> float:
        return value(server.get("/metrics").text, name, **labels)

    wait_for(lambda: now("saddlepoint_http_processes_ready") == 1)
    assert now("saddlepoint_worker_lanes") == 3
    text = server.get("/metrics").text
    created = families(text)["saddlepoint_model_created_timestamp_seconds"].samples
    new_year = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC).timestamp()
    assert [(s.labels, s.value) for s in created] == [({"model": "tiny", "version": "1"}, new_year)]
    # There before the first refusal: a rise from nothing to 1 is none to Prometheus.
    assert 'saddlepoint_model_loads_total{model="tiny",result="refused"} 0.0' in text
    repository.publish("tiny", make_bundle(weights_seed=2))
    wait_for(lambda: now("saddlepoint_model_created_timestamp_seconds", version="2") == new_year)
    assert now("saddlepoint_model_created_timestamp_seconds", version="1") == 0
    server.process.terminate()  # it drains: requests are taken still, but no more should come
    wait_for(lambda: now("saddlepoint_http_processes_ready") == 0)
    assert server.get("/readyz").status_code == 503


def test_the_own_port_ends_with_the_server(
    tiny_repository: Path, start_server: Callable[..., Any]
) -> None:
    port = free_port()
    server = start_server(tiny_repository, "--metrics-port", str(port), "--drain-delay-s", "0")
    url = f"http://127.0.0.1:{port}/metrics"
    assert HTTP.get(url).status_code == 200
    taken = start_server(tiny_repository, "--metrics-port", str(port), ready=False)
    assert taken.process.wait(30) == 2
    wait_for(lambda: f"--metrics-port is {port}" in taken.log.read_text())
    assert server.stop() == 0
    with pytest.raises(httpx.ConnectError):
        HTTP.get(url)


def test_a_gpu_shows_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML's answers stand in for a GPU, which these tests don't have."""
    nvml = gpu_memory.pynvml
    memory = SimpleNamespace(used=3 << 30, total=80 << 30, free=76 << 30)

    def handle_of(index: int) -> str:
        """The card 1 is lost, and the card 2 is split."""
        if index == 1:
            raise nvml.NVMLError(nvml.NVML_ERROR_GPU_IS_LOST)
        return f"GPU-{index}"

    def part_of(card: str, number: int) -> str:
        if number == 1:
            raise nvml.NVMLError(nvml.NVML_ERROR_NOT_FOUND)
        return f"MIG-{card}-{number}"

    for name, answer in {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 3,
        "nvmlDeviceGetHandleByIndex": handle_of,
        "nvmlDeviceGetHandleByUUID": lambda uuid: uuid,
        "nvmlDeviceGetUUID": lambda handle: handle,
        "nvmlDeviceGetMigMode": lambda card: (card == "GPU-2", 0),
        "nvmlDeviceGetMaxMigDeviceCount": lambda card: 3,
        "nvmlDeviceGetMigDeviceHandleByIndex": part_of,
        "nvmlDeviceGetMemoryInfo": lambda handle: memory,
    }.items():
        monkeypatch.setattr(nvml, name, answer)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-GPU-2-0")
    gpu_memory._has_nvml.cache_clear()
    try:
        samples = [sample for family in exposition._gpus() for sample in family.samples]
        own = gpu_memory.room_of_this_process()
    finally:
        gpu_memory._has_nvml.cache_clear()
    cards = [("0", "GPU-0"), ("2:0", "MIG-GPU-2-0"), ("2:2", "MIG-GPU-2-2")]
    assert [(s.name, s.labels, s.value) for s in samples] == [
        (f"saddlepoint_gpu_memory_{kind}_bytes", {"gpu": gpu, "uuid": uuid}, value)
        for kind, value in {"used": 3 << 30, "total": 80 << 30}.items()
        for gpu, uuid in cards
    ]
    assert own is not None
    assert (own.uuid, own.free) == ("MIG-GPU-2-0", 76 << 30)


def test_openmetrics_is_told_where_it_is_asked_for(guarded: Any, server: Any) -> None:
    """On a port of their own, and on the one of all."""
    accept = {"accept": "application/openmetrics-text; version=1.0.0,text/plain;q=0.5"}
    for get in (functools.partial(HTTP.get, guarded.metrics_url), for_main_port(server)):
        told = get(headers=accept)
        assert told.headers["content-type"].startswith(
            "application/openmetrics-text; version=1.0.0"
        )
        assert told.text.endswith("# EOF\n")
        found = {
            family.name + ("_total" if family.type == "counter" else "")
            for family in openmetrics.text_string_to_metric_families(told.text)
        }
        assert found == {entry.name for entry in DESCRIBED}
        plain = get(headers={"accept": "text/plain"})
        assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert "# EOF" not in plain.text
        for accepted in (
            "application/openmetrics-text;version=abc",
            f"*/*;q=0.1, {accept['accept']}",
        ):
            told = get(headers={"accept": accepted})
            assert told.headers["content-type"].startswith(
                "application/openmetrics-text; version=1.0.0"
            ), accepted
        for refused in (
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;version=9.9;q=0.1, text/plain;q=0.9",
            "image/png",
        ):
            told = get(headers={"accept": refused})
            assert told.status_code == 200
            assert told.headers["content-type"].startswith("text/plain; version=0.0.4"), refused
    for refused in ("gzip;q=0", "identity", "xgzip"):
        plain = HTTP.get(guarded.metrics_url, headers={"accept-encoding": refused})
        assert "content-encoding" not in plain.headers
    zipped = HTTP.get(guarded.metrics_url, headers={"accept-encoding": "gzip"})
    assert zipped.headers["content-encoding"] == "gzip"
    assert zipped.text.startswith("# HELP")


def test_a_scrape_can_ask_for_some_metrics_by_name(guarded: Any, server: Any) -> None:
    names = [
        "saddlepoint_http_processes_ready",
        "saddlepoint_http_request_duration_seconds_count",
        "nothing",
    ]
    server.get("/livez")
    for get in (functools.partial(HTTP.get, guarded.metrics_url), for_main_port(server)):
        wait_for(lambda get=get: "_seconds_count{" in get(params={"name[]": names}).text)
        shown = families(get(params={"name[]": names}).text)
        samples = {sample.name for family in shown.values() for sample in family.samples}
        assert samples == {*names[:2]}
        assert get(params={"name[]": "nothing"}).text == ""
        for counter in ("saddlepoint_http_requests_total", "saddlepoint_http_requests"):
            assert families(get(params={"name[]": counter}).text).keys() == {
                "saddlepoint_http_requests_total"
            }


def for_main_port(server: Any) -> Callable[..., httpx.Response]:
    return functools.partial(server.get, "/metrics")


def test_a_connection_to_the_own_port_may_not_rest_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each has a thread of the process that watches the others."""
    monkeypatch.setattr(exposition._Scrape, "timeout", 0.2)
    port = free_port()
    (listener,) = bind("127.0.0.1", port, "metrics_port")
    exposition.listen(listener)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as resting:
        assert resting.recv(1) == b""
    assert HTTP.get(f"http://127.0.0.1:{port}/metrics").status_code == 200
