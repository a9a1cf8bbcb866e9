"""Flags and environment to one validated object.

Every field of `Settings` is a flag (`--max-batch-rows`) and an environment variable
(`SADDLEPOINT_MAX_BATCH_ROWS`); the flag wins. A new field here is a new setting everywhere.
"""

import argparse
import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints

from models.errors import RepositoryError
from models.repository import check_name
from serving.cors import check_origins
from serving.errors import SettingsError

PREFIX = "SADDLEPOINT_"
DEVICES = ("auto", "cpu", "cuda")
_REPOSITORY = Path("model-repository")
HOSTS = ("127.0.0.1", "0.0.0.0", "::")


def _setting(default: Any, help: str, *, least: float | None = None) -> Any:
    return field(default=default, metadata={"help": help, "least": least})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that can be set on a server. Units are in the names."""

    repository: Path = _setting(_REPOSITORY, "folder of the model repository")  # noqa: RUF009 - a field()
    models: tuple[str, ...] = _setting((), "names to serve, comma separated; empty: all")
    host: str = _setting("127.0.0.1", f"address to listen on: {', '.join(HOSTS)}")
    port: int = _setting(8000, "port to listen on, 1024 .. 65535", least=1024)
    device: str = _setting("auto", "auto (CUDA where it works, else the CPU), cpu, cuda")
    api_processes: int = _setting(1, "processes that speak HTTP and encode images", least=1)
    workers_per_device: int = _setting(1, "inference processes for each device", least=1)
    compute_threads: int = _setting(0, "threads of a CPU worker; 0: one for each core", least=0)
    compute_lanes: int = _setting(
        0, "batches that a CPU worker makes at once; 0: one for each core, at most 8", least=0
    )
    cuda_math: str = _setting(
        "fp32", "fp32 (agrees with the CPU), tf32 (faster on Ampere and later, less exact)"
    )
    cuda_graphs: str = _setting("auto", "auto (where a model allows it) or off")
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
    max_body_bytes: int = _setting(8 << 20, "largest request body, in bytes", least=1)
    max_image_pixels: int = _setting(
        1 << 26, "most pixels of all images, tiles or frames of one request", least=1
    )
    max_frames: int = _setting(240, "most frames of one animation", least=2)
    cache_bytes: int = _setting(
        64 << 20, "encoded images to keep, in bytes, of all HTTP processes; 0: none", least=0
    )
    request_timeout_ms: int = _setting(30_000, "a request not answered by then gets 504", least=1)
    drain_timeout_s: int = _setting(20, "longest wait for open requests after SIGTERM", least=1)
    drain_delay_s: float = _setting(
        1.0, "how long after SIGTERM /readyz says 503 while requests are still taken", least=0
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
    cors_origins: tuple[str, ...] = _setting(
        (), "origins whose web pages may ask, comma separated, * for any; empty: none"
    )
    read_timeout_s: float = _setting(
        30.0, "a request whose head or body is not complete by then gets 408", least=0.1
    )
    metrics_port: int = _setting(
        0, "port for /metrics alone, without a key; 0: on --port, with one", least=0
    )
    trace_endpoint: str = _setting(
        "", "OTLP/HTTP URL of a collector for traces, http://localhost:4318; empty: no traces"
    )
    access_log: bool = _setting(False, "true logs a line a request")
    log_format: str = _setting("text", "text, or json: one object a line")
    log_level: str = _setting("info", "critical, error, warning, info or debug")

    def __post_init__(self) -> None:
        """Refuses values out of range, each with what is allowed."""
        for entry in dataclasses.fields(self):
            least = entry.metadata["least"]
            if least is not None and getattr(self, entry.name) < least:
                raise SettingsError(
                    f"{flag(entry.name)} is {getattr(self, entry.name)}, must be at least {least}"
                )
        self._check_ports()
        _one_of("host", self.host, HOSTS)
        _one_of("device", self.device, DEVICES)
        _one_of("model_control", self.model_control, ("off", "clients"))
        _one_of("cuda_math", self.cuda_math, ("fp32", "tf32"))
        _one_of("cuda_graphs", self.cuda_graphs, ("auto", "off"))
        _one_of("log_format", self.log_format, ("text", "json"))
        _one_of("log_level", self.log_level, ("critical", "error", "warning", "info", "debug"))
        self._check_buckets()
        check_origins(self.cors_origins)
        for name in ("max_seeds", "max_frames"):
            least = getattr(self, name) * self.api_processes  # each process has its part
            if self.max_waiting_rows < least:
                raise SettingsError(
                    f"--max-waiting-rows is {self.max_waiting_rows}, must be at least {least}, "
                    f"{flag(name)} for each of --api-processes: the largest allowed request could "
                    "never be admitted"
                )
        try:
            for name in self.models:
                check_name(name)
        except RepositoryError as error:
            raise SettingsError(f"--models: {error}") from error

    def _check_ports(self) -> None:
        if self.port > 65535:
            raise SettingsError(f"--port is {self.port}, allowed are 1024 .. 65535")
        if self.metrics_port and not 1024 <= self.metrics_port <= 65535:
            raise SettingsError(
                f"--metrics-port is {self.metrics_port}, allowed are 0 and 1024 .. 65535"
            )
        if self.metrics_port == self.port:
            raise SettingsError(f"--metrics-port is {self.port}, as --port is; 0 shares it")

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

    def check_device(self, device: str) -> None:
        """Refuses what was set for the other device, "cpu" or "cuda": it would do nothing."""
        others = {
            "cpu": ("cuda_math", "cuda_graphs", "tensorrt_cache"),
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
    """The command line's name of a setting."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """The environment's name of a setting."""
    return PREFIX + name.upper()


def shown_default(entry: "dataclasses.Field[Any]") -> str:
    """A setting's default as one would give it; empty where that is nothing."""
    default = entry.default
    if default in ((), None):
        return ""
    return str(default).lower() if isinstance(default, bool) else str(default)


def parse(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from flags, then the environment, then defaults.

    Args:
        argv: the arguments, without the program's name.
        environ: os.environ where None.

    Raises:
        SettingsError: a value can't be read or is out of range, or a variable is unknown.
        SystemExit: the parser's own (--help, an unknown flag).
    """
    environ = os.environ if environ is None else environ
    parser = _parser()
    given = {k: v for k, v in vars(parser.parse_args(argv)).items() if v is not None}
    sources = {name: flag(name) for name in given}
    known = {variable(entry.name): entry.name for entry in dataclasses.fields(Settings)}
    for key in sorted(environ):
        if not key.startswith(PREFIX):
            continue
        if key not in known:
            raise SettingsError(f"{key} is not a setting; known are {', '.join(known)}")
        if known[key] not in given:
            given[known[key]] = environ[key]
            sources[known[key]] = key
    types = get_type_hints(Settings)
    values = {name: _convert(types[name], text, sources[name]) for name, text in given.items()}
    return Settings(**values)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.run",
        description="Serves the generators of a model repository over HTTP.",
        epilog=f"Every flag can be given as {PREFIX}NAME in the environment; the flag wins.",
    )
    for entry in dataclasses.fields(Settings):
        shown = f" (default: {default})" if (default := shown_default(entry)) else ""
        parser.add_argument(flag(entry.name), help=entry.metadata["help"] + shown)
    return parser


def _convert(kind: Any, text: str, source: str) -> Any:
    try:
        if isinstance(kind, UnionType):  # Path | None
            return Path(text) if text else None
        if items := get_args(kind):
            return tuple(items[0](part.strip()) for part in text.split(",") if part.strip())
        if kind is bool:
            return ("false", "true").index(text) == 1
        value: Any = Path(text) if issubclass(kind, Path) else kind(text)
        if kind is float and not math.isfinite(value):
            raise ValueError
        return value
    except ValueError:
        words = {int: "a whole number", float: "a number", bool: "true or false"}
        raise SettingsError(
            f"{source} is {text!r}, must be {words.get(kind, 'whole numbers')}"
        ) from None


def _listed(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


def _one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise SettingsError(f"{flag(name)} is {value!r}, allowed are {', '.join(allowed)}")
