"""`python -m serving.run --repository DIR`: settings, the server's folder, start and end."""

import logging
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from models.repository import Repository
from serving.errors import ServingError, SettingsError
from serving.settings import Settings, flag, parse

if TYPE_CHECKING:
    from serving.service import Service

logger = logging.getLogger("serving.run")


def main() -> int:
    """Runs a server until it is told to stop; gives the exit code."""
    run_folder: Path | None = None
    try:
        settings = parse(sys.argv[1:])
        run_folder = Path(tempfile.mkdtemp(prefix="saddlepoint-"))
        return serve(settings, run_folder)
    except ServingError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return ServingError.exit_code
    finally:
        if run_folder is not None:
            shutil.rmtree(run_folder, ignore_errors=True)


def serve(settings: Settings, run_folder: Path) -> int:
    """Starts LitServe with our loop and routes; gives the exit code.

    Raises:
        ServingError: the device isn't there, or the port can't be had.
    """
    metrics_folder = run_folder / "metrics"
    metrics_folder.mkdir()
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics_folder)  # before prometheus_client
    os.environ["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", "1")  # no BLAS pools here

    from serving import logs, tracing
    from serving.api import GeneratorAPI
    from serving.app import Gateway
    from serving.devices import choose_device
    from serving.hotpath import HotProtocol
    from serving.link import withdrawn_folder
    from serving.server import Server
    from serving.service import Service

    withdrawn_folder(run_folder).mkdir()
    logs.configure(settings, "main")
    check_repository(settings)
    tracing.check_endpoint(settings.trace_endpoint)
    check_keys(settings)
    check_port(settings, "port", settings.port)
    if settings.metrics_port:
        check_port(settings, "metrics_port", settings.metrics_port)
    accelerator, num_devices = choose_device(settings.device)
    settings.check_device(accelerator)
    num_workers = num_devices * settings.workers_per_device

    def make_service() -> Service:
        return Service(
            settings, run_folder=run_folder, num_workers=num_workers, on_ready=_print_ready
        )

    server = Server(
        GeneratorAPI(settings, run_folder),
        accelerator=accelerator,
        devices=num_devices,
        workers_per_device=settings.workers_per_device,
        timeout=False,
        drain_delay_s=settings.drain_delay_s,
        drain_timeout_s=settings.drain_timeout_s,
        metrics_port=settings.metrics_port,
    )
    server.app = Gateway(server.app, make_service)
    server.run(
        host=settings.host,
        port=settings.port,
        num_api_servers=settings.api_processes,
        log_level=settings.log_level,
        generate_client_file=False,
        loop="uvloop",
        http=HotProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
    )
    return 1 if server.failed else 0


def check_repository(settings: Settings) -> None:
    """Says first of all where there is nothing to serve; it may come yet, so the server starts."""
    fault = Repository(settings.repository).fault()
    if fault is not None:
        every = f"every {settings.reload_interval_s:g} s" if settings.reload_interval_s else "once"
        logger.error("nothing can be served yet: %s; it is looked for %s", fault, every)


def check_keys(settings: Settings) -> None:
    """Raises SettingsError where what is set about keys would not protect, or can't be used."""
    from serving.keys import read_keys

    if "LIT_SERVER_API_KEY" in os.environ:
        raise SettingsError(
            "LIT_SERVER_API_KEY is set, LitServe's own key: it would protect nothing here; unset "
            "it and use --api-keys FILE (python -m serving.keys add FILE NAME)"
        )
    path = settings.api_keys
    if path is None:
        return
    if not read_keys(path):
        logger.warning("--api-keys is %s, which holds none: nobody can ask for images", path)
    if path.stat().st_mode & 0o004:
        logger.warning("--api-keys is %s: everyone may read its names and limits", path)


def check_port(settings: Settings, name: str, port: int) -> None:
    """Raises SettingsError where a port can't be listened on; name: the setting's."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, port))
        except OSError as error:
            raise SettingsError(
                f"{flag(name)} is {port}: {error.strerror} on {settings.host}; "
                "end what listens there, or choose another"
            ) from error


def _print_ready(service: "Service") -> None:
    """Says where it is served, with a line that works."""
    settings = service.settings
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    url = f"http://{host}:{settings.port}"
    manifest = service.catalogue.current[0].manifest
    label = ', "labels": [0]' if manifest.conditional else ""
    body = f'{{"model": "{manifest.name}", "seeds": [42]{label}}}'
    device = service.catalogue.device
    names = ", ".join(served.manifest.name for served in service.catalogue.current)
    if settings.log_format == "json":
        logger.info("serving %s on %s: %s", names, device, url)
        return
    key = " -H 'Authorization: Bearer KEY'" if settings.api_keys else ""
    lines = [
        f"Serving {names} on {device}: {url}",
        f"  curl -s {url}/v1/generate{key} -d '{body}' -o image.png",
    ]
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    sys.exit(main())
