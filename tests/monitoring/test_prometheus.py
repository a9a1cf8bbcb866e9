"""Debian's Prometheus with the shipped rules watches a real server, whose worker is killed."""

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.conftest import ServerProcess, free_port, server_process
from tests.monitoring.conftest import MONITORING, load
from tests.monitoring.test_dashboard import queries
from tests.support import HTTP, wait_for, workers_of

# Panels that are empty on this server: it has no GPU, gave nothing up, and has refused nothing.
EMPTY = {
    *("GPU memory", "Given up before they were made", "Failed, by version"),
    *("Images of encoders and scores", "Seconds of a run of an encoder or a score"),
}
INTERVAL = "200ms"


@dataclass(frozen=True)
class Prometheus:
    url: str

    def get(self, path: str, **query: str) -> Any:
        """The data of an answer of its API."""
        reply = HTTP.get(f"{self.url}/api/v1/{path}", params=query).json()
        assert reply["status"] == "success", reply
        return reply["data"]

    def ask(self, expr: str) -> list[Any]:
        """Instant query."""
        found: list[Any] = self.get("query", query=expr)["result"]
        return found

    def rules(self) -> dict[str, Any]:
        """By name."""
        groups = self.get("rules")["groups"]
        return {rule["name"]: rule for group in groups for rule in group["rules"]}

    def firing(self) -> dict[str, Any]:
        """Labels of the alerts that fire, by name."""
        alerts = self.get("alerts")["alerts"]
        return {a["labels"]["alertname"]: a["labels"] for a in alerts if a["state"] == "firing"}


@contextlib.contextmanager
def watching(target: str, rules: Path, folder: Path, binary: str) -> Iterator[Prometheus]:
    """Prometheus with compose.yaml's configuration: another target, and shorter intervals."""
    config = load(MONITORING / "compose/prometheus.yml")
    config["global"] = dict.fromkeys(config["global"], INTERVAL)
    config["rule_files"] = [str(rules)]
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [
        *(binary, f"--config.file={folder / 'prometheus.yml'}"),
        *(f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}"),
    ]
    log = folder / "prometheus.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(httpx.TransportError):
            return HTTP.get(f"{url}/-/ready").status_code == 200
        return False

    try:
        wait_for(ready)
        yield Prometheus(url)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def watched(
    tiny_repository: Path,
    rules_file: Path,
    tool: Callable[[str], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[ServerProcess, str, Prometheus]]:
    """A server that has answered something on every road, where its metrics are, and who looks."""
    binary, port, folder = tool("prometheus"), free_port(), tmp_path_factory.mktemp("watched")
    flags = ("--metrics-port", str(port), "--buckets", "8,64")
    with server_process(tiny_repository, folder, *flags) as server:
        for _ in range(2):  # the second time from the cache
            assert server.get("/v1/models/grey/images/7.png").status_code == 200
        assert server.generate(model="grey", seeds=[1, 2]).status_code == 200
        assert server.generate(model="grey", seeds=[]).status_code == 400
        with watching(f"127.0.0.1:{port}", rules_file, folder, binary) as prometheus:
            yield server, f"127.0.0.1:{port}", prometheus


def test_a_killed_worker_is_seen(watched: tuple[ServerProcess, str, Prometheus]) -> None:
    server, target, prometheus = watched
    wait_for(lambda: bool(prometheus.ask("namespace_job:saddlepoint_rows_waiting:avg")))
    wait_for(lambda: all(rule["health"] != "unknown" for rule in prometheus.rules().values()))
    assert {n: r for n, r in prometheus.rules().items() if r["health"] != "ok"} == {}
    assert prometheus.ask("saddlepoint_worker_restarts_total")[0]["value"][1] == "0"
    assert prometheus.rules()["SaddlepointWorkerRestarts"]["state"] == "inactive"
    assert prometheus.firing() == {}
    (worker,) = workers_of(server)
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: "SaddlepointWorkerRestarts" in prometheus.firing())
    assert prometheus.firing()["SaddlepointWorkerRestarts"] == {
        "alertname": "SaddlepointWorkerRestarts",
        "severity": "warning",
        "job": "saddlepoint-serve",
        "namespace": "laptop",
        "instance": target,
    }
    # It is back before anybody is woken.
    ready = "saddlepoint_http_processes_ready"  # absent while the server can't be scraped
    wait_for(lambda: [found["value"][1] for found in prometheus.ask(ready)] == ["1"])
    assert {labels["severity"] for labels in prometheus.firing().values()} == {"warning"}


def test_the_dashboard_shows_figures(watched: tuple[ServerProcess, str, Prometheus]) -> None:
    server, _, prometheus = watched
    server.wait_until("/readyz", 200)
    assert server.generate(model="grey", seeds=[3, 4, 5]).status_code == 200
    left = {
        f"{title}: {expr}": re.sub(r"\$(namespace|job)", ".*", expr)
        for title, expr in queries()
        if title not in EMPTY
    }
    assert len(left) > 30

    def all_shown() -> bool:
        for name in [name for name, expr in left.items() if prometheus.ask(expr)]:
            del left[name]
        return not left

    with contextlib.suppress(AssertionError):
        wait_for(all_shown)
    assert left == {}
