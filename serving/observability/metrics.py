"""The Prometheus metrics of the server, which all of its processes share.

Names follow Prometheus' conventions, and units are base units. Labels have few values: routes,
formats, reasons, and the models of the repository, never a text that a client can choose.
`serving.observability.shared_values` keeps the values, `serving.observability.exposition` writes
them out, docs/metrics.md lists them.
"""

from dataclasses import dataclass
from typing import Any

from prometheus_client import Counter, Gauge, Histogram, values

from serving.observability.shared_values import SharedValue

values.ValueClass = SharedValue  # before the first metric is made: it says where values are kept


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
    """over_processes: livesum, livemax, livemin; liveall makes a sample a process, with label pid.

    Of livemin infinity says that there is nothing to say: such a sample is left out.
    """
    quoted = (*labels, "pid") if over_processes == "liveall" else labels
    DESCRIBED.append(Described(name, "gauge", quoted, help))
    return Gauge(name, help, labels, multiprocess_mode=over_processes)


def _histogram(
    name: str, help: str, *labels: str, buckets: tuple[float, ...] = _SECONDS
) -> Histogram:
    DESCRIBED.append(Described(name, "histogram", labels, help))
    return Histogram(name, help, labels, buckets=buckets)


def _collected(name: str, kind: str, help: str, *labels: str) -> Described:
    """Describes a metric that is read at every scrape, and not kept by prometheus_client."""
    described = Described(name, kind, labels, help)
    DESCRIBED.append(described)
    return described


REQUESTS = _counter("saddlepoint_http_requests", "Requests answered.", "route", "method", "status")
IMAGE_REQUESTS = _counter(
    "saddlepoint_image_requests",
    "Requests for images, by whose fault they failed: none (answered), client (what it asked for "
    "can't be had, or it left), server (also overload, and no answer within --promised-ms).",
    "fault",
)
LATENCY = _histogram(
    "saddlepoint_http_request_duration_seconds",
    "From the request's head to the reply's last byte handed to the socket; priority is bulk where "
    "the request let others go first (X-Priority), else interactive.",
    *("route", "priority"),
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
PART_ROWS = _counter(
    "saddlepoint_part_rows",
    "Images that a part of a model was run on: its encoder, or its score.",
    *("model", "version", "part"),
)
PART_COMPUTE = _histogram(
    "saddlepoint_part_compute_seconds",
    "One run of such a part on a batch, as its worker measured it.",
    *("model", "version", "part"),
)
DECODED = _counter(
    "saddlepoint_input_images",
    "Image files that clients sent: decoded, refused, or ended (their process crashed, or took "
    "too long).",
    "outcome",
)
DECODE = _histogram(
    "saddlepoint_input_decode_seconds", "Decoding such a file, without its wait for a process."
)
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
WORKERS = _gauge(
    "saddlepoint_workers_ready",
    "Inference workers that are ready, by what they compute on.",
    "device",
    over_processes="livemax",
)
RELOADS = _counter(
    "saddlepoint_model_loads", "Versions loaded or refused by a worker.", "model", "result"
)
WORKER_RESTARTS = _counter("saddlepoint_worker_restarts", "Inference workers started again.")
WORKER_HANGS = _counter(
    "saddlepoint_worker_hangs", "Inference workers ended because they did not answer any more."
)
JOBS = _gauge(
    "saddlepoint_jobs",
    "Long jobs that are kept: waiting, running, done or failed.",
    "status",
    over_processes="livemax",
)
JOBS_BYTES = _gauge(
    "saddlepoint_jobs_bytes", "Size of the results of long jobs.", over_processes="livemax"
)
JOBS_ENDED = _counter(
    "saddlepoint_jobs_ended",
    "Long jobs that ended: done, failed, deleted before their end.",
    "outcome",
)
LOOP_FAILURES = _counter(
    "saddlepoint_loop_failures",
    "Turns that failed of what the server does all the time; each is tried again.",
    "loop",
)
LOOP_FAILING_SINCE = _gauge(
    "saddlepoint_loop_failing_since_timestamp_seconds",
    "Since when every turn of a loop has failed, in seconds since 1970; absent while they succeed.",
    "loop",
    over_processes="livemin",
)
KEYS_FAILING_SINCE = _gauge(
    "saddlepoint_api_keys_failing_since_timestamp_seconds",
    "Since when the file of API keys can't be read, in seconds since 1970; absent while it can.",
    over_processes="livemin",
)
LOG_DROPPED = _counter(
    "saddlepoint_log_lines_dropped",
    "Lines of the log that were lost because nobody read them in time.",
)
REFUSED_SINCE = _gauge(
    "saddlepoint_model_refused_since_timestamp_seconds",
    "Since when a model's CURRENT version can't be served, in seconds since 1970; absent where it "
    "can. The version before it may still be in service.",
    "model",
    over_processes="livemin",
)
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
    "Memory in use on a GPU, by any process; numbered as nvidia-smi does, a part of a "
    "split one (MIG) as 0:1. Only where NVML is.",
    *("gpu", "uuid"),
)
GPU_TOTAL = _collected(
    "saddlepoint_gpu_memory_total_bytes",
    "gauge",
    "Memory of a GPU. Only where NVML is.",
    *("gpu", "uuid"),
)
CONNECTIONS = _gauge(
    "saddlepoint_connections", "Connections that are open.", over_processes="livesum"
)
CONNECTIONS_REFUSED = _counter(
    "saddlepoint_connections_refused",
    "Connections that were closed at once; reason is descriptors where none was left for them.",
    "reason",
)
CONNECTIONS_ENDED = _counter(
    "saddlepoint_connections_ended",
    "Connections that were cut off because the client did not take an answer: for too long "
    "(write-timeout), while others waited for memory (memory), while the server shut down (drain).",
    "reason",
)
HELD_BYTES = _gauge(
    "saddlepoint_held_bytes",
    "Memory held for requests: large bodies, images, answers that are not yet taken.",
    over_processes="livesum",
)
CACHE_HITS = _counter("saddlepoint_image_cache_hits", "Images that were answered from the cache.")
CACHE_MISSES = _counter("saddlepoint_image_cache_misses", "Images that the cache did not hold.")
CACHE_BYTES = _gauge(
    "saddlepoint_image_cache_bytes", "Size of the kept images.", over_processes="livesum"
)
