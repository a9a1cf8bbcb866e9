"""What is recorded of every request: an id, counts, a line of log, a span.

`begin` is called at a request's head, `headers` when its response is known, and `end` when that was
sent. The fast path and the router call just these, so neither can leave anything out.
"""

import itertools
import logging
import secrets
import time
from collections.abc import Callable

from serving.errors import problems
from serving.http.context import RequestContext
from serving.http.cors import Cors
from serving.http.messages import CLOSE, Headers, Response
from serving.http.proxies import Proxies
from serving.observability import logs, metrics
from serving.observability.buffered import BufferedMetrics
from serving.observability.tracing import TRACEPARENT, Tracer, trace_id_of
from serving.settings import Settings

logger = logging.getLogger(__name__)
access = logging.getLogger(logs.ACCESS)

REQUEST_ID = b"x-request-id"
MAX_REQUEST_ID = 128
_MAX_TARGET = 512
GONE = 499
"""The status in metrics and logs of a request whose client closed the connection first."""

NONE, CLIENT, SERVER = _FAULTS = ("none", "client", "server")
"""By whose fault a request for images got none."""

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"))


class RequestRecorder:
    """Records the requests of one HTTP process."""

    def __init__(self, settings: Settings, buffered: BufferedMetrics) -> None:
        """Must be made after the fork: each process has ids and an exporter of its own."""
        self.draining = False
        """Set when the server drains: every response then ends its connection."""
        self.buffered = buffered
        self.cors = Cors(settings.cors_origins)
        self._access_log = settings.access_log
        self._proxies = Proxies(settings.trusted_proxies, settings.proxy_header)
        self._tracer = Tracer(settings.trace_endpoint) if settings.trace_endpoint else None
        self._prefix = secrets.token_hex(6).encode("ascii")
        self._numbers = itertools.count(1)
        # There from the start, at 0: otherwise a query would not see the first of a kind.
        for fault in _FAULTS:
            buffered.counter(metrics.IMAGE_REQUESTS, fault)
        for problem in problems():
            buffered.counter(metrics.REJECTED, problem.slug)

    def begin(
        self, route: str, method: str, header: Callable[[bytes], bytes | None]
    ) -> RequestContext:
        """Makes the context of a request whose head has come.

        header: gives the value of a header by its lower-case name.
        """
        given = header(REQUEST_ID)
        if given is None or not _is_sane(given):
            given = b"%s-%x" % (self._prefix, next(self._numbers))
        return RequestContext(route, method, header, given, time.perf_counter())

    def headers(self, context: RequestContext, response: Response) -> Headers:
        """Returns all headers of a response but its type and length."""
        headers = (*response.headers, (REQUEST_ID, context.request_id))
        if self.cors.on:
            headers += self.cors.headers(context.header(b"origin"))
        if self.draining and CLOSE not in headers:
            headers += (CLOSE,)
        return headers

    def end(self, context: RequestContext, response: Response | None) -> None:
        """Records a request whose response was written; None if its client had gone."""
        status = GONE if response is None else response.status
        self._count(context, status, time.perf_counter() - context.started)
        if context.makes_images:
            self._count_images(response)
        if response is not None and response.reason:
            self.buffered.counter(metrics.REJECTED, response.reason).pending += 1
            if context.model is not None:
                self.buffered.counter(metrics.FAILED, *context.model, response.reason).pending += 1
        trace_id = None if self._tracer is None else self._tracer.record(context, status)
        if self._access_log:
            num_bytes = 0 if response is None else response.num_bytes
            self._log(
                context, status, num_bytes, trace_id or trace_id_of(context.header(TRACEPARENT))
            )

    def shut_down(self) -> None:
        """Writes out all counts and spans; no request comes after this."""
        self.buffered.flush()
        if self._tracer is not None:
            self._tracer.close()

    def _count_images(self, response: Response | None) -> None:
        if response is None or (response.reason and response.is_clients):
            fault = CLIENT
        else:
            fault = SERVER if response.reason else NONE
        self.buffered.counter(metrics.IMAGE_REQUESTS, fault).pending += 1

    def _count(self, context: RequestContext, status: int, duration_s: float) -> None:
        buffered, route = self.buffered, context.route
        # A client may invent methods, and each value of a label takes memory for ever.
        method = context.method if context.method in _METHODS else "other"
        buffered.counter(metrics.REQUESTS, route, method, status).pending += 1
        priority = "bulk" if context.bulk else "interactive"
        buffered.histogram(metrics.LATENCY, route, priority).observe(duration_s)
        timing = context.timing
        if timing is not None and context.model is not None and status == 200:
            buffered.histogram(metrics.QUEUE_WAIT, *context.model).observe(timing.queue_s)
            buffered.histogram(metrics.ENCODE, context.encoding).observe(timing.encode_s)
        buffered.schedule_flush()

    def _log(
        self, context: RequestContext, status: int, num_bytes: int, trace_id: str | None
    ) -> None:
        model, version = context.model or (None, None)
        made = (
            context.timing if context.timing is not None and context.timing.encode_began else None
        )
        extra = logs.fields(
            request_id=context.name_request(),
            trace_id=trace_id,
            client=self._proxies.client(context.peer, context.header),
            key=None if context.key is None else context.key.name,
            method=context.method,
            route=context.route,
            path=context.target[:_MAX_TARGET].decode("latin-1") or None,
            status=status,
            bytes=num_bytes,
            seeds=context.num_seeds,
            rows=context.num_rows or None,
            model=model,
            version=version,
            duration_ms=_ms(time.perf_counter() - context.started),
            queue_ms=_ms(made.queue_s) if made else None,
            compute_ms=_ms(made.compute_s) if made else None,
            encode_ms=_ms(made.encode_s) if made else None,
        )
        access.info("%s %s %d", context.method, context.route, status, extra=extra)


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)


def _is_sane(request_id: bytes) -> bool:
    """Whether it can be sent back in a header and logged: short, printable ASCII."""
    return (
        0 < len(request_id) <= MAX_REQUEST_ID
        and request_id.isascii()
        and request_id.decode("ascii").isprintable()
    )


def log_failure(context: RequestContext, error: BaseException) -> None:
    """Logs an exception that was not foreseen, with the request that met it."""
    request_id = context.name_request()
    logger.error(
        "unhandled exception at %s %s",
        context.method,
        context.route,
        exc_info=error,
        extra=logs.fields(request_id=request_id),
    )
