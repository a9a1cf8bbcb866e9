"""The routes that machines ask: is it alive, is it ready, how does it fare, what can it do?"""

from serving import metrics
from serving.http import Exchange, Reply, Route
from serving.openapi import document
from serving.service import Service


class Probes:
    """One method a route."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        """Liveness, readiness, metrics, description."""
        return [
            Route("/livez", {"GET": self.live}),
            Route("/readyz", {"GET": self.ready}),
            Route("/health", {"GET": self.ready}),
            Route("/metrics", {"GET": self.metrics}),
            Route("/openapi.json", {"GET": self.openapi}),
        ]

    async def live(self, exchange: Exchange) -> Reply:
        """GET /livez: this process answers."""
        return Reply(b"ok\n", "text/plain")

    async def ready(self, exchange: Exchange) -> Reply:
        """GET /readyz: images can be made."""
        self._service.check_ready()
        return Reply(b"ok\n", "text/plain")

    async def metrics(self, exchange: Exchange) -> Reply:
        """GET /metrics."""
        body, media_type = metrics.exposition()
        return Reply(body, media_type)

    async def openapi(self, exchange: Exchange) -> Reply:
        """GET /openapi.json."""
        return Reply.json(document())
