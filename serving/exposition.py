"""The metrics as Prometheus reads them: of all processes, of dead ones too, on either port.

Each process writes files of its own into PROMETHEUS_MULTIPROC_DIR; a scrape adds them up. What a
dead worker had counted is added to one account of the dead, so that counters never go backwards and
a worker that dies every minute doesn't make scrapes dearer. Memory and CPU of the processes are
looked up in /proc at each scrape, memory of GPUs in NVML.
"""

import contextlib
import fcntl
import functools
import os
import socket
import socketserver
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import pynvml
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Metric,
    generate_latest,
    make_wsgi_app,
    multiprocess,
)
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.registry import Collector

from serving import metrics
from serving.metrics import DESCRIBED, Described

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_OF_SERVED = (
    "saddlepoint_model_info",
    "saddlepoint_model_share_ratio",
    "saddlepoint_model_created_timestamp_seconds",
)


def exposition() -> tuple[bytes, str]:
    """What GET /metrics answers: the text and its content type."""
    return generate_latest(_registry()), CONTENT_TYPE_LATEST


def listen(host: str, port: int) -> None:
    """Answers scrapes on a port of their own, in a thread that ends with the process.

    Raises:
        OSError: the port can't be had.
    """
    application = make_wsgi_app(_registry())
    server = _Server((host, port), _Scrape)
    server.set_app(application)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()


class _Scrape(WSGIRequestHandler):
    """A connection; each has a thread, so none may rest for ever."""

    timeout = 10

    def log_message(self, format: str, *args: Any) -> None:
        """Part of http.server: nothing, scrapes would fill the log."""


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)


def register_process(role: str) -> None:
    """Makes this process's memory and CPU time part of the metrics; role: main, http or worker."""
    metrics.PROCESS_START.labels(role).set(time.time())


def forget_process(pid: int | None) -> None:
    """Drops the live gauges of a process that ended, and keeps what it counted."""
    if pid is None or _VARIABLE not in os.environ:
        return
    folder = Path(os.environ[_VARIABLE])
    with _locked(folder, fcntl.LOCK_EX):
        multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]
        for kind in ("counter", "histogram"):
            _bury(folder / f"{kind}_{pid}.db", folder / f"{kind}_dead.db")


def _bury(file: Path, account: Path) -> None:
    """Adds the values of a dead process's file to the account of the dead."""
    if not file.exists():
        return
    totals: dict[str, float] = defaultdict(float)
    for path in (account, file):
        if path.exists():
            for key, value, _, _ in MmapedDict.read_all_values_from_file(str(path)):  # type: ignore[no-untyped-call]
                totals[key] += value
    new = account.with_suffix(".new")
    new.unlink(missing_ok=True)
    book = MmapedDict(str(new))  # type: ignore[no-untyped-call]
    for key, value in totals.items():
        book.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]
    book.close()  # type: ignore[no-untyped-call]
    new.replace(account)
    file.unlink()


@contextlib.contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    """Keeps a scrape from seeing a dead process's counts twice, or not at all."""
    with (folder / "lock").open("a") as file:
        fcntl.flock(file, how)
        yield


class _Everything(Collector):
    """All that `metrics.DESCRIBED` names; without samples where there are none yet."""

    def collect(self) -> Iterable[Metric]:
        """Part of Prometheus' client."""
        folder = Path(os.environ[_VARIABLE])
        shared = multiprocess.MultiProcessCollector(None, str(folder))  # type: ignore[no-untyped-call]
        with _locked(folder, fcntl.LOCK_SH):
            found: dict[str, Metric] = {m.name: m for m in shared.collect()}  # type: ignore[no-untyped-call]
        for name in _OF_SERVED:
            if name in found:  # what was served once, and isn't now
                found[name].samples = [sample for sample in found[name].samples if sample.value]
        processes = _processes(found.get("saddlepoint_process_start_time_seconds"))
        for metric in (*processes, *_gpus()):
            found[metric.name] = metric
        for described in DESCRIBED:
            family = _family(described)
            yield found.get(family.name, family)


def _registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_Everything())
    return registry


def _family(described: Described) -> Metric:
    name = described.name.removesuffix("_total")
    return Metric(name, described.help, described.kind)


def _processes(started: Metric | None) -> tuple[Metric, Metric]:
    """Memory and CPU time of every process that registered itself and lives."""
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
    for index, memory in enumerate(_gpu_memories()):
        labels = {"gpu": str(index)}
        used.add_sample(used.name, labels, int(memory.used))
        total.add_sample(total.name, labels, int(memory.total))
    return used, total


def _gpu_memories() -> list[Any]:
    """What NVML says of every GPU; nothing where there is no driver, or none that answers."""
    if not _has_nvml():
        return []
    try:
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        return [pynvml.nvmlDeviceGetMemoryInfo(handle) for handle in handles]
    except pynvml.NVMLError:
        return []


@functools.cache
def _has_nvml() -> bool:
    """Loads it once, at the first scrape of a process: it can take long."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return False
    return True
