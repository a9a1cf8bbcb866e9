"""The metrics as Prometheus scrapes them, of all processes, on either port.

Each process shows its values to the others (`serving.observability.shared_values`), and a scrape
adds them up. Memory and CPU time of the processes are read from /proc at each scrape, memory of
GPUs from NVML.
"""

import contextlib
import functools
import gzip
import math
import os
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from serving.errors import NotAcceptableProblem
from serving.http.negotiation import choose, takes_coding
from serving.observability import metrics
from serving.observability.gpu_memory import all_gpus
from serving.observability.metrics import DESCRIBED, Described
from serving.observability.shared_values import Entry, Key, SharedMetrics, own_entries

_OF_SERVED = (
    "saddlepoint_model_info",
    "saddlepoint_model_share_ratio",
    "saddlepoint_model_created_timestamp_seconds",
)


_TEXT, _OPEN = "text/plain", "application/openmetrics-text"
NAMES = "name[]"
"""The parameter of a query that names what is shown; it may be there several times."""


def exposition(
    shared: SharedMetrics | None = None, accept: str = "", names: Collection[str] = ()
) -> tuple[bytes, str]:
    """Returns the body of GET /metrics, and its content type.

    Args:
        shared: the values of all processes; None for this one's alone.
        accept: the header Accept: OpenMetrics where it asks for that, else Prometheus' text.
        names: of metrics or samples, which alone are shown; none for all.
    """
    encode, media_type = choose_encoder(_wanted(accept))
    return encode(_Everything(shared, frozenset(names))), media_type


def _wanted(accept: str) -> str:
    """The one of the two formats that a header Accept asks for: its text is a stranger's."""
    if _OPEN not in accept.lower():
        return _TEXT
    try:
        return choose(accept.encode("latin-1", "replace"), (_OPEN, _TEXT))
    except NotAcceptableProblem:
        return _TEXT


def listen(listener: socket.socket, shared: SharedMetrics | None = None) -> None:
    """Answers scrapes on a port of their own, in a thread that ends with the process.

    listener: bound to it.
    """
    server = _Server(listener)
    server.set_app(functools.partial(_answer, shared))
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()


def _answer(
    shared: SharedMetrics | None, environ: dict[str, Any], start_response: Callable[..., Any]
) -> list[bytes]:
    """A WSGI application: the metrics, at whatever path."""
    method = environ["REQUEST_METHOD"]
    if method not in ("GET", "HEAD"):
        start_response("405 Method Not Allowed", [("Allow", "GET, HEAD")])
        return [b"ask with GET\n"]
    names = parse_qs(environ.get("QUERY_STRING", "")).get(NAMES, [])
    body, media_type = exposition(shared, environ.get("HTTP_ACCEPT", ""), names)
    headers = [("Content-Type", media_type)]
    if takes_coding(environ.get("HTTP_ACCEPT_ENCODING", ""), "gzip"):
        body = gzip.compress(body, compresslevel=1)
        headers.append(("Content-Encoding", "gzip"))
    start_response("200 OK", [*headers, ("Content-Length", str(len(body)))])
    return [body if method == "GET" else b""]


class _Scrape(WSGIRequestHandler):
    """A connection. Each has a thread, so it ends when nothing comes for some seconds."""

    timeout = 10

    def log_message(self, format: str, *args: Any) -> None:
        """Logs nothing: scrapes would fill the log."""


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, listener: socket.socket) -> None:
        host, port = listener.getsockname()[:2]
        super().__init__((host, port), _Scrape, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.server_name, self.server_port = host, port
        self.setup_environ()
        self.server_activate()


def register_process(role: str) -> None:
    """Adds this process's memory and CPU time to the metrics; role: main, http or worker."""
    metrics.PROCESS_START.labels(role).set(time.time())


class _Everything(Collector):
    """Collects all metrics of `metrics.DESCRIBED`, also those that have no samples yet."""

    def __init__(self, shared: SharedMetrics | None, names: frozenset[str]) -> None:
        self._shared = shared
        self._names = names

    def collect(self) -> Iterable[Metric]:
        """Adds up the values of all processes; reads /proc and NVML."""
        found = summed(own_entries() if self._shared is None else self._shared.entries())
        for name in _OF_SERVED:
            if name in found:  # 0: it was served once, and isn't now
                found[name].samples = [sample for sample in found[name].samples if sample.value]
        processes = _processes(found.get("saddlepoint_process_start_time_seconds"))
        for metric in (*processes, *_gpus()):
            found[metric.name] = metric
        for described in DESCRIBED:
            family = _family(described)
            family = found.get(family.name, family)
            family.samples.sort(key=_place)
            if not self._names or {described.name, family.name} & self._names:
                yield family
                continue
            family.samples = [s for s in family.samples if s.name in self._names]
            if family.samples:
                yield family


def _place(sample: Sample) -> tuple[list[tuple[str, str]], str, float]:
    """Where a sample stands: OpenMetrics wants those of one histogram together, buckets rising."""
    rest = sorted(pair for pair in sample.labels.items() if pair[0] != "le")
    return rest, sample.name, float(sample.labels.get("le", 0))


def summed(entries: Iterable[Entry]) -> dict[str, Metric]:
    """The values of several processes as one of each sample, by the metric's name."""
    totals: dict[Key, float] = {}
    for pid, key, value in entries:
        if key.mode == "liveall":
            totals[key._replace(labels=(*key.labels, ("pid", str(pid))))] = value
        elif key.mode == "livemax":
            totals[key] = max(value, totals.get(key, value))
        elif key.mode == "livemin":
            if 0 < value < math.inf:  # else there is nothing to say
                totals[key] = min(value, totals.get(key, value))
        else:
            totals[key] = totals.get(key, 0.0) + value
    descriptions = {described.name.removesuffix("_total"): described for described in DESCRIBED}
    found: dict[str, Metric] = {}
    for key, value in _cumulated(totals):
        if key.metric not in descriptions:
            continue
        if key.metric not in found:
            found[key.metric] = _family(descriptions[key.metric])
        found[key.metric].add_sample(key.sample, dict(key.labels), value)
    return found


def _cumulated(totals: dict[Key, float]) -> Iterator[tuple[Key, float]]:
    """Histograms' buckets count what is below them too, as Prometheus has it; and the counts."""
    buckets: dict[Key, dict[float, str]] = {}
    for key, value in totals.items():
        bound = dict(key.labels).get("le") if key.kind == "histogram" else None
        if bound is None:
            yield key, value
            continue
        rest = tuple(pair for pair in key.labels if pair[0] != "le")
        buckets.setdefault(key._replace(labels=rest), {})[float(bound)] = bound
    for key, bounds in buckets.items():
        total = 0.0
        for _, bound in sorted(bounds.items()):
            bucket = key._replace(labels=(*key.labels, ("le", bound)))
            total += totals[key._replace(labels=tuple(sorted(bucket.labels)))]
            yield bucket, total
        yield key._replace(sample=f"{key.metric}_count"), total


def _family(described: Described) -> Metric:
    name = described.name.removesuffix("_total")
    return Metric(name, described.help, described.kind)


def _processes(started: Metric | None) -> tuple[Metric, Metric]:
    """Returns memory and CPU time of every process that has registered itself and lives."""
    memory, cpu = _family(metrics.PROCESS_MEMORY), _family(metrics.PROCESS_CPU)
    page_bytes, ticks_per_s = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
    for sample in started.samples if started is not None else ():
        process = Path("/proc", sample.labels["pid"])
        with contextlib.suppress(OSError):  # it has just ended, or there is no /proc
            pages = (process / "statm").read_text(encoding="ascii").split()[1]
            fields = (process / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            memory.add_sample(memory.name, sample.labels, int(pages) * page_bytes)
            seconds = (int(fields[11]) + int(fields[12])) / ticks_per_s
            cpu.add_sample(f"{cpu.name}_total", sample.labels, seconds)
    return memory, cpu


def _gpus() -> tuple[Metric, Metric]:
    used, total = _family(metrics.GPU_USED), _family(metrics.GPU_TOTAL)
    for gpu in all_gpus():
        labels = {"gpu": gpu.index, "uuid": gpu.uuid}
        used.add_sample(used.name, labels, gpu.used)
        total.add_sample(total.name, labels, gpu.total)
    return used, total
