"""Traces: W3C `traceparent` read, and a span a request sent to an OpenTelemetry collector.

Spans are made after the answer, from the times that were taken anyway, so that a request pays
nothing where tracing is off. The SDK is the optional extra `trace`, imported where it is used. It
reads its own variables: OTEL_TRACES_SAMPLER for sampling (a caller's decision comes first),
OTEL_EXPORTER_OTLP_HEADERS for the collector's, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES.
"""

import importlib.util
import os
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from serving.errors import SettingsError

if TYPE_CHECKING:
    from serving.visits import Visit

TRACEPARENT = b"traceparent"
TRACESTATE = b"tracestate"
_LENGTH = 55  # 00-<32 hex digits>-<16>-<2>
_HEX = frozenset(b"0123456789abcdef")
_LAST_EXPORT_S = 3.0


def trace_id_of(traceparent: bytes | None) -> str | None:
    """The trace that a request belongs to, 32 hex digits; None where the header isn't valid."""
    if traceparent is None or len(traceparent) < _LENGTH:
        return None
    version, trace, parent, flags = (
        traceparent[start:stop] for start, stop in ((0, 2), (3, 35), (36, 52), (53, 55))
    )
    if traceparent[2:3] + traceparent[35:36] + traceparent[52:53] != b"---":
        return None
    if not _HEX.issuperset(version + trace + parent + flags) or version == b"ff":
        return None
    rest = traceparent[_LENGTH:]
    if rest and (version == b"00" or not rest.startswith(b"-")):  # later versions may add fields
        return None
    return trace.decode("ascii") if trace.strip(b"0") and parent.strip(b"0") else None


def check_endpoint(endpoint: str) -> None:
    """Refuses a collector's URL that can't be one, or that nothing here could speak to.

    Raises:
        SettingsError: with the remedy.
    """
    if not endpoint:
        return
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(
            f"--trace-endpoint is {endpoint!r}, must be a collector's OTLP/HTTP URL: "
            "http://localhost:4318"
        )
    for package in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"):
        try:
            found = importlib.util.find_spec(package) is not None
        except ModuleNotFoundError:  # not even its parent is there
            found = False
        if not found:
            raise SettingsError(
                f"--trace-endpoint is {endpoint}, but {package} is not installed; "
                "pip install 'saddlepoint[trace]'"
            )


class Tracer:
    """Sends spans, in batches, from a thread of the SDK's; made after the fork."""

    def __init__(self, endpoint: str) -> None:
        """endpoint: as checked; without a path, /v1/traces is added."""
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        if not urlsplit(endpoint).path.strip("/"):
            endpoint = endpoint.rstrip("/") + "/v1/traces"
        attributes: dict[str, Any] = {"process.pid": os.getpid()}
        if "OTEL_SERVICE_NAME" not in os.environ:
            attributes["service.name"] = "saddlepoint"
        self._provider = TracerProvider(
            resource=Resource.create(attributes), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
        self._tracer = self._provider.get_tracer("saddlepoint")
        self._propagator = TraceContextTextMapPropagator()

    def record(self, visit: "Visit", status: int) -> str:
        """Makes the spans of a request that has just been answered; gives its trace's id."""
        from opentelemetry import trace

        now_ns, now = time.time_ns(), time.perf_counter()

        def at(moment: float) -> int:
            return now_ns - round((now - moment) * 1e9)

        carrier = {
            name.decode(): value.decode("latin-1")
            for name in (TRACEPARENT, TRACESTATE)
            if (value := visit.header(name)) is not None
        }
        span = self._tracer.start_span(
            f"{visit.method} {visit.route}",
            self._propagator.extract(carrier),
            kind=trace.SpanKind.SERVER,
            attributes=_attributes(visit, status),
            start_time=at(visit.started),
        )
        inside = trace.set_span_in_context(span)
        for name, start, stop in _stages(visit):
            child = self._tracer.start_span(name, inside, start_time=at(start))
            child.end(at(stop))
        if status >= 500:
            span.set_status(trace.StatusCode.ERROR)
        span.end(now_ns)
        return trace.format_trace_id(span.get_span_context().trace_id)

    def close(self) -> None:
        """Sends what there is, if the collector takes it in time."""
        last = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        last.start()
        last.join(_LAST_EXPORT_S)


def _attributes(visit: "Visit", status: int) -> dict[str, Any]:
    """By OpenTelemetry's semantic conventions for HTTP, and our own."""
    attributes: dict[str, Any] = {
        "http.request.method": visit.method,
        "http.route": visit.route,
        "http.response.status_code": status,
        "saddlepoint.request_id": visit.request_id.decode("ascii"),
    }
    if status >= 500:
        attributes["error.type"] = str(status)
    if visit.key is not None:
        attributes["saddlepoint.key"] = visit.key.name
    if visit.order is not None:
        model, version = visit.order.served.key
        attributes["saddlepoint.model"] = model
        attributes["saddlepoint.version"] = version
        attributes["saddlepoint.rows"] = visit.num_rows
    if visit.ticket is not None:
        attributes["saddlepoint.compute_s"] = visit.ticket.compute_s
    return attributes


def _stages(visit: "Visit") -> list[tuple[str, float, float]]:
    """Name, begin and end, by perf_counter, of what was done for images that were made."""
    ticket = visit.ticket
    if ticket is None or not ticket.encode_began:
        return []
    sent = ticket.entered + ticket.queue_s
    return [
        ("queue", ticket.entered, sent),
        ("infer", sent, ticket.encode_began),
        ("encode", ticket.encode_began, ticket.encode_began + ticket.encode_s),
    ]
