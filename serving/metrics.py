"""Prometheus metrics, summed over all processes of the server.

PROMETHEUS_MULTIPROC_DIR must be set before this module is imported: `serving.run` does, with a
folder of the server's own. Names follow Prometheus' conventions; units are base units.
"""

import os

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

_LATENCY_BUCKETS = (
    *(0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032),
    *(0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384, 32.768),
)

REQUESTS = Counter("saddlepoint_http_requests", "Requests answered.", ["route", "method", "status"])
LATENCY = Histogram(
    "saddlepoint_http_request_duration_seconds",
    "From the request's head to the reply's last byte handed to the socket.",
    ["route"],
    buckets=_LATENCY_BUCKETS,
)
ROWS = Counter("saddlepoint_rows_generated", "Images made.", ["model", "version"])
COMPUTE = Histogram(
    "saddlepoint_compute_seconds",
    "One run of a model, as its worker measured it.",
    ["model", "version"],
    buckets=_LATENCY_BUCKETS,
)
BATCH_ROWS = Histogram(
    "saddlepoint_batch_rows",
    "Images in one run of a model.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
)
WAITING_ROWS = Gauge(
    "saddlepoint_rows_waiting",
    "Images admitted, not yet sent to a worker.",
    multiprocess_mode="livesum",
)
IN_FLIGHT_ROWS = Gauge(
    "saddlepoint_rows_in_flight", "Images that workers are making.", multiprocess_mode="livesum"
)
ABANDONED_ROWS = Counter(
    "saddlepoint_rows_abandoned", "Images dropped before they were made.", ["reason"]
)
MODEL_INFO = Gauge(
    "saddlepoint_model_info",
    "1 for the version of each model that is served when none is asked for.",
    ["model", "version", "digest"],
    multiprocess_mode="livemax",
)
RELOADS = Counter(
    "saddlepoint_model_loads", "Versions loaded or refused by a worker.", ["model", "result"]
)
CACHE_HITS = Counter("saddlepoint_image_cache_hits", "Images that were answered from the cache.")
CACHE_MISSES = Counter("saddlepoint_image_cache_misses", "Images that the cache did not hold.")
CACHE_BYTES = Gauge(
    "saddlepoint_image_cache_bytes", "Size of the kept images.", multiprocess_mode="livesum"
)
WORKER_RESTARTS = Counter("saddlepoint_worker_restarts", "Inference workers started again.")


def exposition() -> tuple[bytes, str]:
    """What GET /metrics answers: the text and its content type."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST


def forget_process(pid: int) -> None:
    """Drops the live gauges of a process that ended."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]
