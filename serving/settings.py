"""The settings of a server, checked.

Every field of `Settings` is a flag (`--max-batch-rows`) and an environment variable
(`SADDLEPOINT_MAX_BATCH_ROWS`), read by `serving.command_line`. A new field here is a new setting
everywhere.
"""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.errors import RepositoryError
from models.repository import check_name
from serving.errors import SettingsError
from serving.webhook_hosts import parse_hosts

PREFIX = "SADDLEPOINT_"
MAX_PORT = 65535
OWN_SEGMENTS = frozenset(
    ("v1", "v2", "web", "docs", "predict", "health", "livez", "readyz", "metrics", "openapi.json")
)
"""First segments of the server's own paths: no proxy's prefix may be one."""
DEVICES = ("auto", "cpu", "cuda")
_REPOSITORY = Path("model-repository")


AUTO = 0
"""In place of a number: the server chooses. Written as the word `auto`."""
_MOST_PROCESSES = {"cpu": 2, "cuda": 4}
"""That `auto` starts, by device."""


def _setting(
    default: Any, help: str, *, least: float | None = None, can_be_auto: bool = False
) -> Any:
    metadata = {"help": help, "least": least, "can_be_auto": can_be_auto}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that can be set on a server. Units are in the names."""

    repository: Path = _setting(  # noqa: RUF009 - a field()
        _REPOSITORY, "folder of the model repository, or its address elsewhere (--mirror)"
    )
    mirror: str = _setting(
        "",
        "address of a repository elsewhere, s3://bucket/models or any other of fsspec, that is "
        "copied to --repository; --repository s3://... chooses the folder by itself; empty: none",
    )
    mirror_interval_s: float = _setting(
        10.0, "how often that repository is looked at for new versions", least=0.1
    )
    models: tuple[str, ...] = _setting((), "names to serve, comma separated; empty: all")
    host: str = _setting(
        "127.0.0.1",
        "address to listen on, or a name for some of this machine's: 127.0.0.1, localhost, ::1, "
        "0.0.0.0 and :: (all), 192.0.2.7",
    )
    port: int = _setting(8000, "port to listen on; 0: one that is free, which is printed", least=0)
    unix_socket: Path | None = _setting(  # noqa: RUF009 - a field()
        None, "path of a Unix socket to listen on instead of --host and --port; empty: none"
    )
    root_path: str = _setting(
        "",
        "path under which a proxy shows this server, /images; requests may come with it or "
        "without; empty: none",
    )
    device: str = _setting("auto", "auto (CUDA where it works, else the CPU), cpu, cuda")
    devices: tuple[str, ...] = _setting(
        (),
        "the only GPUs to use, comma separated, as CUDA_VISIBLE_DEVICES takes them: numbers of "
        "nvidia-smi, GPU-... or MIG-...; empty: all that work",
    )
    api_processes: int = _setting(
        AUTO,
        "processes that speak HTTP and encode images; auto, or 0: one for each core, at most 2 "
        "beside a CPU worker and 4 beside GPUs",
        least=1,
        can_be_auto=True,
    )
    workers_per_device: int = _setting(1, "inference processes for each device", least=1)
    compute_threads: int = _setting(0, "threads of a CPU worker; 0: one for each core", least=0)
    compute_lanes: int = _setting(
        0, "batches that a CPU worker makes at once; 0: one for each core, at most 8", least=0
    )
    cuda_math: str = _setting(
        "fp32",
        "fp32 (agrees with the CPU), tf32 (faster on Ampere and later, less exact) or fp16 (layers "
        "in float16: faster still, less exact still)",
    )
    cuda_graphs: str = _setting("auto", "auto (where a model allows it) or off")
    cuda_memory_mb: int = _setting(
        0, "most memory of a GPU that one version takes, in MB (2^20 bytes); 0: no limit", least=0
    )
    tensorrt_cache: Path | None = _setting(  # noqa: RUF009 - a field()
        None, "run on TensorRT and keep its engines in this folder; empty: on CUDA alone"
    )
    max_batch_rows: int = _setting(64, "most images that one run of the model makes", least=1)
    buckets: tuple[int, ...] = _setting(
        (),
        "sizes that runs of the model are padded to, comma separated, the last one "
        "--max-batch-rows; empty: 1, 2, 4 ... on CUDA, no padding on the CPU",
    )
    max_loaded: int = _setting(
        8, "most versions in a worker's memory; the least recently used one goes", least=1
    )
    max_waiting_rows: int = _setting(
        4096, "images that may be admitted and not yet made; more are refused (429)", least=1
    )
    max_seeds: int = _setting(1024, "most seeds or latents in one request", least=1)
    jobs_folder: Path | None = _setting(  # noqa: RUF009 - a field()
        None, "folder for long jobs and their results; empty: none are taken"
    )
    max_jobs: int = _setting(16, "most long jobs, those that have ended too", least=1)
    max_jobs_per_key: int = _setting(
        0,
        "most long jobs of one API key, so that others have room; 0: half of --max-jobs, rounded "
        "up; without API keys it has no effect",
        least=0,
    )
    max_job_images: int = _setting(100_000, "most images of one long job", least=1)
    max_jobs_bytes: int = _setting(
        4 << 30, "disk for the results of long jobs, in bytes, of all together", least=1
    )
    max_jobs_bytes_per_key: int = _setting(
        0,
        "disk for the results of one API key's long jobs, in bytes; 0: half of --max-jobs-bytes, "
        "rounded up; without API keys it has no effect",
        least=0,
    )
    jobs_keep_s: int = _setting(
        86_400, "how long a long job is kept after its end, in seconds", least=1
    )
    webhook_hosts: tuple[str, ...] = _setting(
        (),
        "hosts that may be told when a long job ends, comma separated, as HOST for any port of it "
        "or HOST:PORT, IPv6 addresses in brackets; empty: none",
    )
    max_body_bytes: int = _setting(8 << 20, "largest request body, in bytes", least=1)
    max_image_pixels: int = _setting(
        1 << 26, "most pixels of all images, tiles or frames of one request", least=1
    )
    max_frames: int = _setting(240, "most frames of one animation", least=2)
    max_input_pixels: int = _setting(
        1 << 24, "most pixels of an image that a client sends (/v1/encode and others)", least=1
    )
    decode_timeout_s: float = _setting(
        2.0,
        "processor time that decoding such an image may take; then it is refused, and its process "
        "is ended",
        least=0.05,
    )
    image_metadata: bool = _setting(
        True,
        "true writes into every image file how it was made: seed, label, truncation, model, "
        "version, digest",
    )
    cache_bytes: int = _setting(
        64 << 20, "encoded images to keep, in bytes, of all HTTP processes; 0: none", least=0
    )
    request_timeout_ms: int = _setting(30_000, "a request not answered by then gets 504", least=1)
    promised_ms: int = _setting(
        1000,
        "the time that a client must allow for a 504 to count against the service "
        "(saddlepoint_image_requests_total); with less it is the client's own doing",
        least=1,
    )
    drain_timeout_s: int = _setting(
        35,
        "longest wait for open requests after SIGTERM; longer than --request-timeout-ms",
        least=1,
    )
    drain_delay_s: float = _setting(
        1.0, "how long after SIGTERM /readyz says 503 while requests are still taken", least=0
    )
    worker_timeout_s: float = _setting(
        10.0,
        "a worker that gives no sign of life for so long, or whose runs neither end nor compute, "
        "is killed and started again",
        least=2,
    )
    reload_interval_s: float = _setting(
        1.0, "how often the repository is looked at for new versions; 0: never", least=0
    )
    model_control: str = _setting(
        "off", "clients: they may load and unload models over /v2; off: nobody may"
    )
    api_keys: Path | None = _setting(  # noqa: RUF009 - a field()
        None, "file of API keys (python -m serving.keys), reread on change; empty: none is needed"
    )
    keys_grace_s: float = _setting(
        60.0,
        "how long API keys stay valid when their file can't be read any more; then all are refused",
        least=0,
    )
    cors_origins: tuple[str, ...] = _setting(
        (), "origins whose web pages may ask, comma separated, * for any; empty: none"
    )
    allowed_hosts: tuple[str, ...] = _setting(
        (),
        "host names, comma separated, under which web pages of this server may load and unload "
        "models; empty: IP addresses and localhost",
    )
    read_timeout_s: float = _setting(
        30.0, "a request whose head or body is not complete by then gets 408", least=0.1
    )
    write_timeout_s: float = _setting(
        30.0,
        "a client must take 64 KiB and a 16th of its answer in every such time, or is cut off",
        least=0.1,
    )
    max_held_bytes: int = _setting(
        512 << 20,
        "memory for request bodies, images and answers not yet taken, in bytes, of all HTTP "
        "processes; what does not fit waits",
        least=1,
    )
    metrics_port: int = _setting(
        0, "port for /metrics alone, without a key; 0: on --port, with one", least=0
    )
    grpc_port: int = _setting(
        0, "port for the Open Inference Protocol over gRPC, on --host; 0: none", least=0
    )
    trace_endpoint: str = _setting(
        "", "OTLP/HTTP URL of a collector for traces, http://localhost:4318; empty: no traces"
    )
    access_log: bool = _setting(False, "true logs a line a request")
    trusted_proxies: tuple[str, ...] = _setting(
        (),
        "addresses and networks of proxies, comma separated, and unix for a Unix socket: the "
        "access log believes what they say of their clients; empty: nobody",
    )
    proxy_header: str = _setting(
        "x-forwarded-for", "the header in which they say it: x-forwarded-for or forwarded"
    )
    log_format: str = _setting("text", "text, or json: one object a line")
    log_level: str = _setting("info", "critical, error, warning, info or debug")

    def __post_init__(self) -> None:
        """Raises SettingsError for a value out of range, with what is allowed."""
        for entry in dataclasses.fields(self):
            least, value = entry.metadata["least"], getattr(self, entry.name)
            if entry.metadata["can_be_auto"] and value == AUTO:
                continue
            if least is not None and value < least:
                raise SettingsError(
                    f"{flag(entry.name)} is {getattr(self, entry.name)}, must be at least {least}"
                )
        self._check_ports()
        _check_root_path(self.root_path)
        _one_of("device", self.device, DEVICES)
        if len(set(self.devices)) < len(self.devices):
            raise SettingsError(
                f"--devices is {','.join(self.devices)}, each GPU may be named once; "
                "--workers-per-device starts several processes on each"
            )
        _one_of("model_control", self.model_control, ("off", "clients"))
        _one_of("cuda_math", self.cuda_math, ("fp32", "tf32", "fp16"))
        _one_of("cuda_graphs", self.cuda_graphs, ("auto", "off"))
        _one_of("log_format", self.log_format, ("text", "json"))
        _one_of("log_level", self.log_level, ("critical", "error", "warning", "info", "debug"))
        _one_of("proxy_header", self.proxy_header, ("x-forwarded-for", "forwarded"))
        self._check_buckets()
        _check_origins(self.cors_origins)
        _check_hosts(self.allowed_hosts)
        parse_hosts(self.webhook_hosts)
        for name in ("max_seeds", "max_frames"):
            least = getattr(self, name)
            if self.max_waiting_rows < least:
                raise SettingsError(
                    f"--max-waiting-rows is {self.max_waiting_rows}, must be at least {least}, "
                    f"as {flag(name)} is: the largest allowed request could never be admitted"
                )
        try:
            for name in self.models:
                check_name(name)
        except RepositoryError as error:
            raise SettingsError(f"--models: {error}") from error

    def _check_ports(self) -> None:
        for name in ("port", "metrics_port", "grpc_port"):
            if getattr(self, name) > MAX_PORT:
                raise SettingsError(
                    f"{flag(name)} is {getattr(self, name)}, allowed are 0 .. {MAX_PORT}"
                )
        if not self.host.strip():
            raise SettingsError("--host is empty; 127.0.0.1 for this machine alone, :: for all")
        if self.unix_socket is None and self.metrics_port and self.metrics_port == self.port:
            raise SettingsError(f"--metrics-port is {self.port}, as --port is; 0 shares it")
        if self.grpc_port and self.grpc_port in (self.port, self.metrics_port):
            raise SettingsError(
                f"--grpc-port is {self.grpc_port}, as another port is; choose another, or 0"
            )
        if self.unix_socket is not None and self.port != Settings.port:
            raise SettingsError(
                f"--port is {self.port} and --unix-socket is {self.unix_socket}: give one of them"
            )

    def _check_buckets(self) -> None:
        given = self.buckets
        if not given:
            return
        if given[0] < 1 or list(given) != sorted(set(given)):
            raise SettingsError(f"--buckets is {_listed(given)}, must be rising, from 1 on")
        if given[-1] != self.max_batch_rows:
            raise SettingsError(
                f"--buckets is {_listed(given)}, its last must be --max-batch-rows, which is "
                f"{self.max_batch_rows}; set both to the same"
            )

    def chosen(self, device: str, num_cpus: int) -> "Settings":
        """The settings with numbers where they say `auto`.

        Args:
            device: "cpu" or "cuda".
            num_cpus: that this server may use.
        """
        if self.api_processes != AUTO:
            return self
        return dataclasses.replace(self, api_processes=min(num_cpus, _MOST_PROCESSES[device]))

    def check_device(self, device: str) -> None:
        """Raises SettingsError for settings of the other device, "cpu" or "cuda".

        They would have no effect.
        """
        others = {
            "cpu": ("devices", "cuda_math", "cuda_graphs", "cuda_memory_mb", "tensorrt_cache"),
            "cuda": ("compute_threads", "compute_lanes"),
        }
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            if entry.name in others[device] and value != entry.default:
                raise SettingsError(
                    f"{flag(entry.name)} is {value}, but the models run on {device}, where it has "
                    "no effect; leave it out, or set --device"
                )


def flag(name: str) -> str:
    """Returns the flag of a setting."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """Returns the environment variable of a setting."""
    return PREFIX + name.upper()


def shown_default(entry: "dataclasses.Field[Any]") -> str:
    """Returns a setting's default as one would write it; empty for nothing."""
    default = entry.default
    if default == AUTO and entry.metadata["can_be_auto"]:
        return "auto"
    if default in ((), None):
        return ""
    return str(default).lower() if isinstance(default, bool) else str(default)


def _listed(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


def _one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise SettingsError(f"{flag(name)} is {value!r}, allowed are {', '.join(allowed)}")


def _check_root_path(path: str) -> None:
    """Raises SettingsError for what is no plain path of whole segments, or begins as ours do."""
    if path.lstrip("/").partition("/")[0] in OWN_SEGMENTS:
        raise SettingsError(
            f"--root-path is {path!r}: paths of the server itself begin so; choose another"
        )
    if path and not re.fullmatch(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+", path):
        raise SettingsError(
            f"--root-path is {path!r}, allowed are segments of letters, digits, dots, hyphens and "
            "underscores, without a slash at the end: /images, /team/gan"
        )


def _check_hosts(hosts: tuple[str, ...]) -> None:
    """Raises SettingsError for what is no plain host name."""
    for host in hosts:
        if not re.fullmatch(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?", host):
            raise SettingsError(
                f"--allowed-hosts has {host!r}, allowed are host names in lower case, without "
                "scheme and port: gan.example.org"
            )


def _check_origins(origins: tuple[str, ...]) -> None:
    """Raises SettingsError for a text that a browser would never send as Origin."""
    for origin in origins:
        scheme, _, host = origin.partition("://")
        plain = host.isascii() and host == host.lower() and not set(host) & set("/?#@ ")
        if origin != "*" and not (scheme in ("http", "https") and host and plain):
            raise SettingsError(
                f"--cors-origins has {origin!r}, allowed are * and origins as browsers send them: "
                "https://example.org, http://localhost:3000 (lower case, no path)"
            )
