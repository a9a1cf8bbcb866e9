"""`python -m serving.run --repository DIR`: starts the server and runs it until it is stopped."""

import importlib.util
import logging
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from models.repository import Repository
from models.stdout import closed_pipe_ignored
from serving.command_line import PROG, of_kubernetes, parse
from serving.errors import ServingError, SettingsError
from serving.observability.log_output import adopt_streams, output
from serving.run_folder import RunFolder
from serving.settings import Settings
from serving.signals import Orders

if TYPE_CHECKING:
    from serving.process.key_watch import KeyFile
    from serving.process.service import Service

logger = logging.getLogger("serving.run")

_MAX_SOCKET_PATH = 107  # of sockaddr_un's 108 bytes the last is a zero


@closed_pipe_ignored
def main(argv: Sequence[str] | None = None, *, prog: str = PROG, fast_path: bool = True) -> int:
    """Runs a server until it is stopped; returns the exit code.

    argv: the arguments, those of the process if not given. prog: how it was called. fast_path:
    False is for benchmarks/serving/fast_path.py, which measures what it gains.
    """
    run_folder: RunFolder | None = None
    try:
        # First: `--help` and wrong usage end here, with streams and signals as they were found.
        settings = parse(sys.argv[1:] if argv is None else argv, prog=prog)
        adopt_streams()
        orders = Orders()
        orders.listen()
        run_folder = RunFolder()
        return serve(settings, run_folder, orders, fast_path=fast_path)
    except ServingError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # of our own output: what is around this ends it
        raise
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return ServingError.exit_code
    finally:
        if run_folder is not None:
            run_folder.remove()
        output.close()


def serve(
    settings: Settings, run_folder: RunFolder, orders: Orders, *, fast_path: bool = True
) -> int:
    """Starts LitServe with our loop and routes; returns the exit code.

    Raises:
        ServingError: a setting, the device or the port can't be used.
    """
    # Otherwise BLAS starts a thread a core, which nothing here uses.
    os.environ["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", "1")

    from serving.api.app import Gateway
    from serving.api.connection import ServerConnection
    from serving.api.fast_path import FastPathConnection
    from serving.connection.descriptors import raise_limit
    from serving.http.proxies import Proxies
    from serving.inference.accelerator.choice import choose_devices
    from serving.inference.devices import num_cpus
    from serving.inference.frames import socket_path
    from serving.inference.lit_api import GeneratorAPI
    from serving.observability import logs, tracing
    from serving.process.listening import Listeners, check_port
    from serving.process.mirror import Mirror
    from serving.process.service import Service
    from serving.process.shared import Shared
    from serving.process.supervisor import Server

    logs.configure(settings, "main")
    raise_limit()
    check_environment()
    mirror = None
    if settings.mirror:
        mirror = Mirror(settings.mirror, settings.repository, settings.models)
    else:
        check_repository(settings)
    tracing.check_endpoint(settings.trace_endpoint)
    Proxies(settings.trusted_proxies, settings.proxy_header)  # raises where they can't be used
    keys = keys_at_start(settings)
    check_jobs(settings)
    if settings.metrics_port:
        check_port(settings, "metrics_port", settings.metrics_port)
    if settings.grpc_port:
        check_grpc()
        check_port(settings, "grpc_port", settings.grpc_port)
    devices = choose_devices(settings.device, settings.devices)
    settings.check_device(devices.kind)
    settings = settings.chosen(devices.kind, num_cpus())
    num_workers = devices.num * settings.workers_per_device
    check_socket(socket_path(run_folder.path, num_workers - 1))
    shared = Shared.make(settings, num_workers, keys)
    listeners = Listeners(settings)
    settings = listeners.settings

    def make_service(index: int) -> Service:
        return Service(
            settings,
            run_folder=run_folder.path,
            shared=shared,
            index=index,
            num_workers=num_workers,
            on_ready=_print_ready,
        )

    server = Server(
        GeneratorAPI(
            settings,
            run_folder=run_folder.path,
            withdrawn=shared.withdrawn,
            metrics=shared.metrics,
            visible=devices.visible,
        ),
        accelerator=devices.kind,
        devices=devices.num,
        workers_per_device=settings.workers_per_device,
        timeout=False,
        orders=orders,
        shared=shared,
        run_folder=run_folder,
        worker_timeout_s=settings.worker_timeout_s,
        drain_delay_s=settings.drain_delay_s,
        drain_timeout_s=settings.drain_timeout_s,
        listeners=listeners,
        mirror=mirror,
        mirror_interval_s=settings.mirror_interval_s,
        metrics_port=settings.metrics_port,
        disable_openapi_url=True,  # LitServe's, which nobody reaches: it would be announced
    )
    server.app = Gateway(server.app, make_service)
    server.run(
        host=settings.host,
        num_api_servers=settings.api_processes,
        log_level=settings.log_level,
        generate_client_file=False,
        loop="uvloop",
        http=FastPathConnection if fast_path else ServerConnection,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    return 1 if server.failed else 0


def check_environment() -> None:
    """Says which variables look like settings and are none."""
    if found := of_kubernetes(os.environ):
        logger.warning(
            "%s: no settings, but what Kubernetes tells pods of a Service; ignored "
            "(enableServiceLinks: false in the pod leaves them out)",
            ", ".join(found),
        )


def check_repository(settings: Settings) -> None:
    """Logs an error if there is nothing to serve. The server starts anyway: models may come yet."""
    fault = Repository(settings.repository).fault()
    if fault is not None:
        every = f"every {settings.reload_interval_s:g} s" if settings.reload_interval_s else "once"
        logger.error("nothing can be served yet: %s; it is looked for %s", fault, every)


def keys_at_start(settings: Settings) -> "KeyFile | None":
    """The API keys at the start; None where none is needed.

    Raises:
        SettingsError: the keys' settings can't be used, or would not protect the server.
    """
    from serving.process.key_watch import KeyFile

    if "LIT_SERVER_API_KEY" in os.environ:
        raise SettingsError(
            "LIT_SERVER_API_KEY is set, LitServe's own key: it would protect nothing here; unset "
            "it and use --api-keys FILE (python -m serving.keys add FILE NAME)"
        )
    path = settings.api_keys
    if path is None:
        return None
    file = KeyFile.read(path)
    if not file.keys:
        logger.warning("--api-keys is %s, which holds none: nobody can ask for images", path)
    if path.stat().st_mode & 0o004:
        logger.warning("--api-keys is %s: everyone may read its names and limits", path)
    return file


def check_grpc() -> None:
    """Raises SettingsError where what gRPC needs is not installed."""
    for name in ("google", "google.protobuf"):  # a package before what is in it
        if importlib.util.find_spec(name) is None:
            raise SettingsError(
                f"--grpc-port is given, and {name} is not installed: pip install "
                "'.[grpc]' in Saddlepoint's source folder, or leave it 0"
            )


def check_jobs(settings: Settings) -> None:
    """Raises SettingsError where the folder of long jobs can't be written to."""
    folder = settings.jobs_folder
    if folder is None:
        return
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SettingsError(
            f"--jobs-folder is {folder}: {error.strerror or error}; name a folder that this user "
            "may write to"
        ) from error


def check_socket(path: Path) -> None:
    """Raises SettingsError where the path of a worker's socket is longer than the kernel takes."""
    num_bytes = len(os.fsencode(path))
    if num_bytes > _MAX_SOCKET_PATH:
        raise SettingsError(
            f"TMPDIR is {path.parent.parent}: the path of a socket in it would have {num_bytes} "
            f"bytes, the system takes {_MAX_SOCKET_PATH}; set TMPDIR to a shorter path"
        )


def _print_ready(service: "Service") -> None:
    """Prints the URL, and a command that works."""
    from serving.process.listening import url_of

    settings = service.settings
    url = url_of(settings)
    manifest = service.catalogue.current[0].manifest
    label = ', "labels": [0]' if manifest.conditional else ""
    body = f'{{"model": "{manifest.name}", "seeds": [42]{label}}}'
    device = service.catalogue.device
    names = ", ".join(served.manifest.name for served in service.catalogue.current)
    path = settings.unix_socket
    place = url if path is None else str(path)
    if settings.log_format == "json":
        logger.info("serving %s on %s: %s", names, device, place)
        return
    key = " -H 'Authorization: Bearer KEY'" if settings.api_keys else ""
    if path is not None:
        key += f" --unix-socket {shlex.quote(str(path))}"
    lines = [
        f"Serving {names} on {device}: {place}",
        f"  curl -s {url}/v1/generate{key} -d '{body}' -o image.png",
    ]
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    sys.exit(main())
