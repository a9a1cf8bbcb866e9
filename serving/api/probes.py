"""The routes for machines: liveness, readiness, metrics, and the OpenAPI description."""

import asyncio
import dataclasses
from typing import Any
from urllib.parse import parse_qs

from serving.api.operations import Operation
from serving.api.router import Handler, Route
from serving.errors import UnavailableProblem
from serving.http.messages import Request, Response
from serving.keys.key import METRICS
from serving.observability.exposition import NAMES, exposition
from serving.process.service import Service


class Probes:
    """The handlers, one for each route."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        """Returns the routes; without /metrics if `--metrics-port` gives it a port of its own."""
        ready: dict[str, Any] = {"problems": (UnavailableProblem,)}
        routes = [
            _probe("/livez", self.live, "Does the process answer?"),
            _probe("/readyz", self.ready, "Can images be made?", **ready),
            _probe("/health", self.ready, "Can images be made? LitServe's path.", **ready),
        ]
        if not self._service.settings.metrics_port:
            summary = "Prometheus metrics."
            metrics = _probe("/metrics", self.metrics, summary, response="As text.")
            routes.append(dataclasses.replace(metrics, scope=METRICS))
        return routes

    async def live(self, request: Request) -> Response:
        """GET /livez: answers 200 as long as this process answers at all."""
        return Response(b"ok\n", "text/plain")

    async def ready(self, request: Request) -> Response:
        """GET /readyz: answers 200 if images can be made, and 503 with the reason if not."""
        self._service.check_ready()
        return Response(b"ok\n", "text/plain")

    async def metrics(self, request: Request) -> Response:
        """GET /metrics: the metrics of all processes."""
        self._service.buffered.flush()
        accept = (request.header(b"accept") or b"").decode("latin-1")
        names = parse_qs(request.scope["query_string"].decode("latin-1")).get(NAMES, [])
        shared = self._service.shared.metrics
        body, media_type = await asyncio.to_thread(exposition, shared, accept, names)
        return Response(body, media_type)


def _probe(path: str, handler: Handler, summary: str, **more: Any) -> Route:
    described = {"response": "ok", "content": {"text/plain": str}} | more
    operation = Operation(id=path[1:], summary=summary, tag="Probes and metrics", **described)
    return Route("GET", path, handler, operation)
