"""A server with all that watches and guards it: keys, two HTTP processes, logs, traces, metrics."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.conftest import ServerProcess, free_port, server_process
from tests.support import HTTP, http_processes_of

READ_TIMEOUT_S = 1.0
ORIGIN = "https://example.org"


def make_key(path: Path, name: str, *limits: str) -> str:
    """A key, by the command that makes them."""
    command = [sys.executable, "-m", "serving.keys", "add", str(path), name, *limits]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@contextlib.contextmanager
def collector() -> Iterator[tuple[str, list[tuple[dict[str, Any], Span]]]]:
    """An OTLP/HTTP collector: its URL, and the spans that it got, each with its resource."""
    spans: list[tuple[dict[str, Any], Span]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.path == "/v1/traces":
                for sent in ExportTraceServiceRequest.FromString(body).resource_spans:
                    resource = attributes_of(sent.resource)
                    for scope in sent.scope_spans:
                        spans.extend((resource, span) for span in scope.spans)
            self.send_response(200 if self.path == "/v1/traces" else 404)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        thread = threading.Thread(target=listener.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.server_address[1]}", spans
        finally:
            listener.shutdown()
            thread.join()


def attributes_of(holder: Any) -> dict[str, Any]:
    """Attributes of a span or resource as a dictionary."""
    return {
        entry.key: getattr(entry.value, entry.value.WhichOneof("value"))
        for entry in holder.attributes
    }


@dataclass
class Guarded:
    """The server, and what a test needs to come in and to watch."""

    server: ServerProcess
    keys_path: Path
    key: str
    metrics_url: str
    spans: list[tuple[dict[str, Any], Span]] = field(repr=False)

    def post(
        self, body: Any, *, key: str | None = None, chunked: bool = False, **headers: str
    ) -> httpx.Response:
        """POST /v1/generate, by the fast path or, chunked, by uvicorn's."""
        content = json.dumps(body).encode()
        return HTTP.post(
            self.server.url + "/v1/generate",
            content=iter([content]) if chunked else content,
            headers={"authorization": f"Bearer {key or self.key}"}
            | {name.replace("_", "-"): value for name, value in headers.items()},
            timeout=30,
        )

    @contextlib.contextmanager
    def only(self, http_process: int) -> Iterator[None]:
        """Lets one HTTP process alone answer: the others are stopped meanwhile."""
        others = [pid for pid in http_processes_of(self.server) if pid != http_process]
        for pid in others:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in others:
                os.kill(pid, signal.SIGCONT)

    def metrics(self) -> str:
        """A scrape."""
        return HTTP.get(self.metrics_url).text

    def log(self) -> list[dict[str, Any]]:
        """What the server has logged."""
        return [json.loads(line) for line in self.server.log.read_text().splitlines()]

    def access(self, request_id: str) -> list[dict[str, Any]]:
        """The lines of the access log about a request."""
        return [
            entry
            for entry in self.log()
            if entry["logger"] == "serving.access" and entry["request_id"] == request_id
        ]


@pytest.fixture(scope="session")
def guarded(tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """One such server for all tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("guarded")
    keys_path, metrics_port = folder / "keys", free_port()
    key = make_key(keys_path, "alice")
    with contextlib.ExitStack() as stack:
        endpoint, spans = stack.enter_context(collector())
        environ = stack.enter_context(pytest.MonkeyPatch.context())
        environ.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        flags = {
            "api-keys": keys_path,
            "api-processes": 2,
            "metrics-port": metrics_port,
            "cors-origins": ORIGIN,
            "read-timeout-s": READ_TIMEOUT_S,
            "access-log": "true",
            "log-format": "json",
            "trace-endpoint": endpoint,
            "buckets": "8,64",
            "image-metadata": "false",
            "trusted-proxies": "127.0.0.1,10.0.0.0/8",
            "cache-bytes": 0,  # what is counted is made
        }
        given = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
        server = stack.enter_context(server_process(tiny_repository, folder, *given))
        metrics_url = f"http://127.0.0.1:{metrics_port}/metrics"
        yield Guarded(server, keys_path, key, metrics_url, spans)
