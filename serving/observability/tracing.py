"""Traces: reads W3C `traceparent`, and sends a span for each request to an OpenTelemetry collector.

Spans are made after the response, from times that are taken anyway, so a request costs nothing more
if tracing is off. The SDK is the optional extra `trace`, and is imported only if it is used. It
reads variables of its own: OTEL_TRACES_SAMPLER for sampling (a caller's decision comes first),
OTEL_EXPORTER_OTLP_HEADERS for the collector, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES.
"""

import importlib.util
import os
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from serving.errors import SettingsError
from serving.http.context import RequestContext

TRACEPARENT = b"traceparent"
TRACESTATE = b"tracestate"
_LENGTH = 55  # 00-<32 hex digits>-<16>-<2>
_HEX = frozenset(b"0123456789abcdef")
_LAST_EXPORT_S = 3.0


def trace_id_of(traceparent: bytes | None) -> str | None:
    """Returns a request's trace, 32 hex digits; None if the header is absent or not valid."""
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
    """Checks `--trace-endpoint`.

    Raises:
        SettingsError: it is no URL of a collector, or the extra `trace` is not installed.
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
                "pip install '.[trace]' in Saddlepoint's source folder"
            )


class Tracer:
    """Sends spans in batches, from a thread of the SDK; must be made after the fork."""

    def __init__(self, endpoint: str) -> None:
        """endpoint: as checked; if it has no path, /v1/traces is added."""
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

    def record(self, context: RequestContext, status: int) -> str:
        """Makes the spans of a request that has just been answered; returns its trace's id."""
        from opentelemetry import trace

        now_ns, now = time.time_ns(), time.perf_counter()

        def at(moment: float) -> int:
            return now_ns - round((now - moment) * 1e9)

        carrier = {
            name.decode(): value.decode("latin-1")
            for name in (TRACEPARENT, TRACESTATE)
            if (value := context.header(name)) is not None
        }
        span = self._tracer.start_span(
            f"{context.method} {context.route}",
            self._propagator.extract(carrier),
            kind=trace.SpanKind.SERVER,
            attributes=_attributes(context, status),
            start_time=at(context.started),
        )
        inside = trace.set_span_in_context(span)
        for name, start, stop in _stages(context):
            child = self._tracer.start_span(name, inside, start_time=at(start))
            child.end(at(stop))
        if status >= 500:
            span.set_status(trace.StatusCode.ERROR)
        span.end(now_ns)
        return trace.format_trace_id(span.get_span_context().trace_id)

    def close(self) -> None:
        """Sends the last spans, and waits some seconds for the collector to take them."""
        last = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        last.start()
        last.join(_LAST_EXPORT_S)


def _attributes(context: RequestContext, status: int) -> dict[str, Any]:
    """Returns attributes by OpenTelemetry's semantic conventions for HTTP, and some of our own."""
    attributes: dict[str, Any] = {
        "http.request.method": context.method,
        "http.route": context.route,
        "http.response.status_code": status,
        "saddlepoint.request_id": context.request_id.decode("ascii"),
    }
    if status >= 500:
        attributes["error.type"] = str(status)
    if context.key is not None:
        attributes["saddlepoint.key"] = context.key.name
    if context.model is not None:
        attributes["saddlepoint.model"], attributes["saddlepoint.version"] = context.model
        attributes["saddlepoint.rows"] = context.num_rows
    if context.timing is not None:
        attributes["saddlepoint.compute_s"] = context.timing.compute_s
    return attributes


def _stages(context: RequestContext) -> list[tuple[str, float, float]]:
    """Returns name, begin and end, by perf_counter, of each stage of making images."""
    timing = context.timing
    if timing is None or not timing.encode_began:
        return []
    sent = timing.entered + timing.queue_s
    return [
        ("queue", timing.entered, sent),
        ("infer", sent, timing.encode_began),
        ("encode", timing.encode_began, timing.encode_began + timing.encode_s),
    ]
