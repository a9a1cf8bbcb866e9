"""The application: which rooms of routes there are, and the life of the service behind them."""

from collections.abc import Callable

from serving import oip
from serving.gate import OPEN
from serving.http import ASGIApp, Receive, Scope, Send
from serving.oip import OIP
from serving.probes import Probes
from serving.router import Router
from serving.service import Service
from serving.site import PATHS, Site
from serving.v1 import V1


class Gateway:
    """The outermost application: the routes, and the life of the service behind them.

    Stands around LitServe's own application, whose stack of middlewares (GZip among them) costs
    more than a small image and must not touch one. The service is made in each HTTP process, when
    uvicorn starts it.
    """

    def __init__(self, app: ASGIApp, make_service: Callable[[], Service]) -> None:
        """app: LitServe's."""
        self._app = app
        self._make_service = make_service
        self._router: Router
        self.service: Service
        self.v1: V1
        self.response_queue_id = 0  # LitServe sets it on the application that it starts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Part of ASGI."""
        if scope["type"] == "http":
            await self._router(scope, receive, send)
        elif scope["type"] == "lifespan":
            self.service = self._make_service()
            self.v1 = V1(self.service)
            self._router = Router(
                [
                    *self.v1.routes(),
                    *OIP(self.service).routes(),
                    *Probes(self.service).routes(),
                    *Site().routes(),
                ],
                gate=self.service.gate,
                open_paths=OPEN | PATHS,
                visits=self.service.visits,
                read_timeout_s=self.service.settings.read_timeout_s,
                wordings={oip.PREFIX: oip.problem_reply},
            )
            async with self.service.running():
                await self._app(scope, receive, send)
