"""What every request meets, on either road: an id, its key, counts, a line of log, a span.

`open` at a request's head, `headers` when its answer is known, `close` when that was sent. The
short road and the router both do just this, so that neither can forget a thing.
"""

import itertools
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serving import logs, metrics
from serving.cors import Cors
from serving.http import CLOSE, Headers, Reply
from serving.keys import Key
from serving.settings import Settings
from serving.tallies import Tallies
from serving.tracing import TRACEPARENT, Tracer, trace_id_of

if TYPE_CHECKING:
    from serving.schemas import Order
    from serving.tickets import Ticket

access = logging.getLogger(logs.ACCESS)

REQUEST_ID = b"x-request-id"
MAX_REQUEST_ID = 128
GONE = 499
"""The status of a request whose client closed the connection first, where it is counted."""

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"))


@dataclass(eq=False, slots=True)
class Visit:
    """A request, from its head to its answer."""

    route: str
    """The route's path as it is documented; "other" where there is none."""
    method: str
    header: Callable[[bytes], bytes | None]
    """The value of a header by its lower-case name."""
    request_id: bytes
    started: float
    """By time.perf_counter."""
    key: Key | None = None
    order: "Order | None" = None
    ticket: "Ticket | None" = None
    """Of the images it asked for last."""
    num_rows: int = 0
    """Images that it asked for and was admitted with."""

    def name_request(self) -> str:
        """Its id, for a log."""
        return self.request_id.decode("ascii")


class Visits:
    """The requests of one HTTP process."""

    def __init__(self, settings: Settings, tallies: Tallies) -> None:
        """To be made after the fork: ids and exporters are each process's own."""
        self.draining = False
        """True where every answer ends its connection."""
        self.tallies = tallies
        self.cors = Cors(settings.cors_origins)
        self._access_log = settings.access_log
        self._tracer = Tracer(settings.trace_endpoint) if settings.trace_endpoint else None
        self._prefix = secrets.token_hex(6).encode("ascii")
        self._numbers = itertools.count(1)

    def open(self, route: str, method: str, header: Callable[[bytes], bytes | None]) -> Visit:
        """A request's head has come."""
        given = header(REQUEST_ID)
        if given is None or not _is_sane(given):
            given = b"%s-%x" % (self._prefix, next(self._numbers))
        return Visit(route, method, header, given, time.perf_counter())

    def headers(self, visit: Visit, reply: Reply) -> Headers:
        """All headers of an answer but its type and length."""
        headers = (*reply.headers, (REQUEST_ID, visit.request_id))
        if self.cors.on:
            headers += self.cors.headers(visit.header(b"origin"))
        if self.draining and CLOSE not in headers:
            headers += (CLOSE,)
        return headers

    def close(self, visit: Visit, reply: Reply | None) -> None:
        """The answer was handed to the socket; None where the client had gone."""
        status = GONE if reply is None else reply.status
        self._count(visit, status, time.perf_counter() - visit.started)
        if reply is not None and reply.reason:
            self.tallies.count(metrics.REJECTED, reply.reason).pending += 1
            if visit.order is not None:
                key = visit.order.served.key
                self.tallies.count(metrics.FAILED, *key, reply.reason).pending += 1
        trace_id = None if self._tracer is None else self._tracer.record(visit, status)
        if self._access_log:
            num_bytes = 0 if reply is None else len(reply.body)
            self._log(visit, status, num_bytes, trace_id or trace_id_of(visit.header(TRACEPARENT)))

    def shut_down(self) -> None:
        """Nobody comes any more: what was gathered is written out."""
        self.tallies.flush()
        if self._tracer is not None:
            self._tracer.close()

    def _count(self, visit: Visit, status: int, duration_s: float) -> None:
        tallies, route = self.tallies, visit.route
        # A client may invent methods; each label value lives for ever.
        method = visit.method if visit.method in _METHODS else "other"
        tallies.count(metrics.REQUESTS, route, method, status).pending += 1
        tallies.spread(metrics.LATENCY, route).observe(duration_s)
        ticket, order = visit.ticket, visit.order
        if ticket is not None and order is not None and status == 200:
            name, version = order.served.key
            tallies.spread(metrics.QUEUE_WAIT, name, version).observe(ticket.queue_s)
            tallies.spread(metrics.ENCODE, order.encoding.label).observe(ticket.encode_s)
        tallies.touch()

    def _log(self, visit: Visit, status: int, num_bytes: int, trace_id: str | None) -> None:
        ticket, order = visit.ticket, visit.order
        model, version = (None, None) if order is None else order.served.key
        made = ticket is not None and ticket.encode_began
        extra = logs.fields(
            request_id=visit.name_request(),
            trace_id=trace_id,
            key=None if visit.key is None else visit.key.name,
            method=visit.method,
            route=visit.route,
            status=status,
            bytes=num_bytes,
            rows=visit.num_rows or None,
            model=model,
            version=version,
            duration_ms=_ms(time.perf_counter() - visit.started),
            queue_ms=_ms(ticket.queue_s) if ticket is not None and made else None,
            compute_ms=_ms(ticket.compute_s) if ticket is not None and made else None,
            encode_ms=_ms(ticket.encode_s) if ticket is not None and made else None,
        )
        access.info("%s %s %d", visit.method, visit.route, status, extra=extra)


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)


def _is_sane(request_id: bytes) -> bool:
    """Printable ASCII of a bearable length: it goes back in a header, and into logs."""
    return (
        0 < len(request_id) <= MAX_REQUEST_ID
        and request_id.isascii()
        and request_id.decode("ascii").isprintable()
    )
