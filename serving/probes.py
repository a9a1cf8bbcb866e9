"""The routes that machines ask: is it alive, is it ready, how does it fare, what can it do?"""

import asyncio

from serving.exposition import exposition
from serving.http import Exchange, Reply
from serving.openapi import described
from serving.router import Route
from serving.service import Service


class Probes:
    """One method a route."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        """Liveness, readiness, metrics unless they have a port of their own, description."""
        routes = [
            Route("/livez", {"GET": self.live}),
            Route("/readyz", {"GET": self.ready}),
            Route("/health", {"GET": self.ready}),
            Route("/openapi.json", {"GET": self.openapi}),
        ]
        if not self._service.settings.metrics_port:
            routes.append(Route("/metrics", {"GET": self.metrics}))
        return routes

    async def live(self, exchange: Exchange) -> Reply:
        """GET /livez: this process answers."""
        return Reply(b"ok\n", "text/plain")

    async def ready(self, exchange: Exchange) -> Reply:
        """GET /readyz: images can be made."""
        self._service.check_ready()
        return Reply(b"ok\n", "text/plain")

    async def metrics(self, exchange: Exchange) -> Reply:
        """GET /metrics."""
        self._service.tallies.flush()
        body, media_type = await asyncio.to_thread(exposition)
        return Reply(body, media_type)

    async def openapi(self, exchange: Exchange) -> Reply:
        """GET /openapi.json."""
        return Reply.json(described(self._service.settings))
