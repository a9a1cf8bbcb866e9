"""Metrics of a real server: documented as they are, right over processes, deaths and restarts."""

import datetime
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from models.repository import Repository
from serving import exposition
from serving.metrics import DESCRIBED
from tests.conftest import free_port
from tests.support import http_processes_of, metric, wait_for, workers_of

DOCS = Path(__file__).parents[2] / "docs"


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
    rare = ("gpu", "abandoned", "requests_failed")
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
                reply = guarded.post({"model": "grey", "seeds": [1, 2]}, chunked=chunked)
                asked.add(reply.headers["x-request-id"].partition("-")[0])
    guarded.post({"model": "grey", "seeds": []})
    num = 4
    assert len(asked) == 2
    padding = 6 * num  # --buckets 8,64: a run of two rows computes six in vain
    expected = [num, num + 1, num, num, 2 * num, 2 * num, padding, 1]
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
    page = httpx.get(guarded.metrics_url)
    assert page.headers["content-type"].startswith("text/plain; version=")


def test_counters_survive_a_killed_worker(
    tiny_repository: Path, start_server: Callable[..., Any], tmp_path: Path
) -> None:
    server = start_server(tiny_repository, "--buckets", "8,64", "--cache-bytes", "0")
    (metrics_folder,) = tmp_path.glob("saddlepoint-*/metrics")
    last: dict[tuple[str, str], float] = {}
    pids = set()

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
        assert server.generate(model="grey", seeds=[1, 2, 3]).status_code == 200
        check()
        (worker,) = workers_of(server)
        pids.add(worker)
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: metric(server, "saddlepoint_worker_restarts_total") == death)  # noqa: B023
        check()
        wait_for(lambda: workers_of(server) not in ([], [worker]))  # noqa: B023
        server.wait_until("/readyz", 200)
        text = check()
        assert value(text, "saddlepoint_rows_padded_total", model="grey") == 5 * death
        assert value(text, "saddlepoint_model_loads_total", result="loaded") == 2 * (death + 1)
        running = {
            sample.labels["pid"]
            for sample in families(text)["saddlepoint_process_start_time_seconds"].samples
            if sample.labels["role"] == "worker"
        }
        assert running == set(map(str, workers_of(server)))
    names = [path.name for path in metrics_folder.iterdir()]
    assert not [name for name in names for pid in pids if f"_{pid}." in name]


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
    assert httpx.get(url).status_code == 200
    taken = start_server(tiny_repository, "--metrics-port", str(port), ready=False)
    assert taken.process.wait(30) == 2
    assert f"--metrics-port is {port}" in taken.log.read_text()
    assert server.stop() == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_a_gpu_shows_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML's answers stand in for a GPU, which these tests don't have."""
    nvml = exposition.pynvml
    memory = SimpleNamespace(used=3 << 30, total=80 << 30)
    monkeypatch.setattr(nvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(nvml, "nvmlDeviceGetCount", lambda: 1)
    monkeypatch.setattr(nvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(nvml, "nvmlDeviceGetMemoryInfo", lambda handle: memory)
    exposition._has_nvml.cache_clear()
    try:
        samples = [sample for family in exposition._gpus() for sample in family.samples]
    finally:
        exposition._has_nvml.cache_clear()
    assert [(s.name, s.labels, s.value) for s in samples] == [
        ("saddlepoint_gpu_memory_used_bytes", {"gpu": "0"}, 3 << 30),
        ("saddlepoint_gpu_memory_total_bytes", {"gpu": "0"}, 80 << 30),
    ]


BURIALS = """
import json, os, re, shutil, subprocess, sys, threading
from serving import metrics
from serving.exposition import exposition, forget_process, register_process

if len(sys.argv) > 1:
    register_process("worker")
    metrics.RELOADS.labels("m", "loaded").inc(3)
    metrics.COMPUTE.labels("m", 1).observe(0.003)
    metrics.WAITING_ROWS.set(7)
    print(os.getpid(), flush=True)
    os._exit(0)
for number in range(1, 6):
    ran = subprocess.run([sys.executable, __file__, "child"], stdout=subprocess.PIPE, check=True)
    before = exposition()[0].decode()
    forget_process(int(ran.stdout))
    text = exposition()[0].decode()
    for line in (
        f'saddlepoint_model_loads_total{{model="m",result="loaded"}} {3.0 * number}',
        f'saddlepoint_compute_seconds_count{{model="m",version="1"}} {float(number)}',
        f'saddlepoint_compute_seconds_bucket{{le="0.004",model="m",version="1"}} {float(number)}',
        f'saddlepoint_compute_seconds_bucket{{le="0.002",model="m",version="1"}} 0.0',
    ):
        assert line in before, (line, before)
        assert line in text, (line, text)
    assert "saddlepoint_rows_waiting 7.0" in before
    assert "saddlepoint_rows_waiting 0.0" in text
    assert 'role="worker"' not in text
    forget_process(int(ran.stdout))  # once more changes nothing
    assert exposition()[0].decode().count("loads_total{") == 1
folder = os.environ["PROMETHEUS_MULTIPROC_DIR"]
shutil.copy(f"{folder}/counter_dead.db", f"{folder}/first")
done, seen = threading.Event(), []

def scrape():
    while not done.is_set():
        text = exposition()[0].decode()
        seen.append(float(re.search("loads_total{.*} (.*)", text)[1]))

thread = threading.Thread(target=scrape)
thread.start()
for _ in range(200):
    shutil.copy(f"{folder}/first", f"{folder}/next")
    os.rename(f"{folder}/next", f"{folder}/counter_999999.db")
    forget_process(999999)
done.set()
thread.join()
assert len(seen) > 10
assert seen == sorted(seen), "a scrape saw a dead process's counts twice, or not at all"
print(json.dumps(sorted(os.listdir(os.environ["PROMETHEUS_MULTIPROC_DIR"]))))
"""


def test_the_dead_keep_what_they_counted_in_one_file(tmp_path: Path) -> None:
    script = tmp_path / "burials.py"
    script.write_text(BURIALS)
    (tmp_path / "metrics").mkdir()
    ran = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        env={
            "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics"),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        },
    )
    assert ran.returncode == 0, ran.stderr
    names = json.loads(ran.stdout)
    assert {"counter_dead.db", "histogram_dead.db"} <= set(names)
    # Besides: those of the one process that lives.
    assert len({name.rpartition("_")[2] for name in names if name.endswith(".db")}) == 2


def test_a_connection_to_the_own_port_may_not_rest_for_ever(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each has a thread of the process that watches the others."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setattr(exposition._Scrape, "timeout", 0.2)
    port = free_port()
    exposition.listen("127.0.0.1", port)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as resting:
        assert resting.recv(1) == b""
    assert httpx.get(f"http://127.0.0.1:{port}/metrics").status_code == 200
