"""Prometheus metrics, summed over all processes of the server: what there is.

PROMETHEUS_MULTIPROC_DIR must be set before this module is imported: `serving.run` does, with a
folder of the server's own. Names follow Prometheus' conventions; units are base units. Labels take
few values: routes, formats, reasons, and the models of the repository; nothing that a client makes
up. `serving.exposition` writes them out, docs/metrics.md lists them.
"""

from dataclasses import dataclass
from typing import Any

from prometheus_client import Counter, Gauge, Histogram


@dataclass(frozen=True)
class Described:
    """A metric as it is documented."""

    name: str
    kind: str
    """counter, gauge or histogram."""
    labels: tuple[str, ...]
    help: str


DESCRIBED: list[Described] = []
"""Every metric of the server, in the order of their definition."""

_SECONDS = (
    *(0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032),
    *(0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384, 32.768),
)


def _counter(name: str, help: str, *labels: str) -> Counter:
    """name: without _total, which Prometheus' client adds."""
    DESCRIBED.append(Described(f"{name}_total", "counter", labels, help))
    return Counter(name, help, labels)


def _gauge(name: str, help: str, *labels: str, over_processes: Any) -> Gauge:
    """over_processes: livesum or livemax; liveall makes a sample a process, with a label pid."""
    shown = (*labels, "pid") if over_processes == "liveall" else labels
    DESCRIBED.append(Described(name, "gauge", shown, help))
    return Gauge(name, help, labels, multiprocess_mode=over_processes)


def _histogram(
    name: str, help: str, *labels: str, buckets: tuple[float, ...] = _SECONDS
) -> Histogram:
    DESCRIBED.append(Described(name, "histogram", labels, help))
    return Histogram(name, help, labels, buckets=buckets)


def _collected(name: str, kind: str, help: str, *labels: str) -> Described:
    """A metric that is looked up at every scrape, not kept."""
    described = Described(name, kind, labels, help)
    DESCRIBED.append(described)
    return described


REQUESTS = _counter("saddlepoint_http_requests", "Requests answered.", "route", "method", "status")
LATENCY = _histogram(
    "saddlepoint_http_request_duration_seconds",
    "From the request's head to the reply's last byte handed to the socket.",
    "route",
)
REJECTED = _counter(
    "saddlepoint_requests_rejected",
    "Requests answered with a problem, by the last part of its type.",
    "reason",
)
QUEUE_WAIT = _histogram(
    "saddlepoint_queue_wait_seconds",
    "Of a request that was answered with images: until its last image was sent to a worker.",
    "model",
    "version",
)
COMPUTE = _histogram(
    "saddlepoint_compute_seconds",
    "One run of a model, as its worker measured it.",
    "model",
    "version",
)
ENCODE = _histogram(
    "saddlepoint_encode_seconds",
    "Of a request that was answered with images: pixels to the reply's body.",
    "format",
)
ROWS = _counter("saddlepoint_rows_generated", "Images made.", "model", "version")
BATCH_ROWS = _histogram(
    "saddlepoint_batch_rows",
    "Images in one run of a model, without padding.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
)
PADDED_ROWS = _counter(
    "saddlepoint_rows_padded",
    "Rows computed beyond the images that were wanted, to fill a bucket.",
    "model",
)
WAITING_ROWS = _gauge(
    "saddlepoint_rows_waiting",
    "Images admitted, not yet sent to a worker.",
    over_processes="livesum",
)
IN_FLIGHT_ROWS = _gauge(
    "saddlepoint_rows_in_flight", "Images that workers are making.", over_processes="livesum"
)
ABANDONED_ROWS = _counter(
    "saddlepoint_rows_abandoned", "Images dropped before they were made.", "reason"
)
MODEL_SHARE = _gauge(
    "saddlepoint_model_share_ratio",
    "Part of the seeds that a version makes where requests name none; below 1 with a candidate.",
    *("model", "version"),
    over_processes="livemax",
)
MODEL_INFO = _gauge(
    "saddlepoint_model_info",
    "1 for the version of each model that is served when none is asked for.",
    *("model", "version", "digest"),
    over_processes="livemax",
)
FAILED = _counter(
    "saddlepoint_requests_failed",
    "Requests that a version was to make images for, and that were answered with a problem.",
    *("model", "version", "reason"),
)
MODEL_CREATED = _gauge(
    "saddlepoint_model_created_timestamp_seconds",
    "When the version that is served when none is asked for was exported, in seconds since 1970.",
    *("model", "version"),
    over_processes="livemax",
)
READY = _gauge(
    "saddlepoint_http_processes_ready",
    "HTTP processes that can make images; /readyz answers 200 once all of them could.",
    over_processes="livesum",
)
LANES = _gauge(
    "saddlepoint_worker_lanes",
    "Batches that the workers that are ready can make at once, all together.",
    over_processes="livemax",
)
RELOADS = _counter(
    "saddlepoint_model_loads", "Versions loaded or refused by a worker.", "model", "result"
)
WORKER_RESTARTS = _counter("saddlepoint_worker_restarts", "Inference workers started again.")
PROCESS_START = _gauge(
    "saddlepoint_process_start_time_seconds",
    "When the process came up, in seconds since 1970; role is main, http or worker.",
    "role",
    over_processes="liveall",
)
PROCESS_MEMORY = _collected(
    "saddlepoint_process_resident_memory_bytes",
    "gauge",
    "Resident memory; pages that processes share count in each.",
    *("role", "pid"),
)
PROCESS_CPU = _collected(
    "saddlepoint_process_cpu_seconds_total",
    "counter",
    "User and system time of the process.",
    *("role", "pid"),
)
GPU_USED = _collected(
    "saddlepoint_gpu_memory_used_bytes",
    "gauge",
    "Memory in use on a GPU, by any process; numbered as nvidia-smi does. Only where NVML is.",
    "gpu",
)
GPU_TOTAL = _collected(
    "saddlepoint_gpu_memory_total_bytes", "gauge", "Memory of a GPU. Only where NVML is.", "gpu"
)
CACHE_HITS = _counter("saddlepoint_image_cache_hits", "Images that were answered from the cache.")
CACHE_MISSES = _counter("saddlepoint_image_cache_misses", "Images that the cache did not hold.")
CACHE_BYTES = _gauge(
    "saddlepoint_image_cache_bytes", "Size of the kept images.", over_processes="livesum"
)
