"""The HTTP port at which Prometheus reads a training's metrics."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_wsgi_server

from training.errors import ConfigError, require


@contextmanager
def endpoint(host: str, port: int, registry: CollectorRegistry) -> Iterator[None]:
    """Answers GET /metrics within the block.

    Args:
        host: the address to listen on.
        port: of TCP; 0 listens nowhere.
        registry: what is shown.

    Raises:
        ConfigError: the port is taken or is none, or the address isn't one of this machine.
    """
    remedy = "set --metrics-port to another, or --metrics-host to an address of this machine"
    require(0 <= port < 1 << 16, "metrics_port", port, "0 .. 65535", "0 listens nowhere")
    if not port:
        yield
        return
    try:
        server, thread = start_wsgi_server(port, host, registry)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(
            f"metrics_port is {port}, allowed: a free port of {host} ({reason}); {remedy}"
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
