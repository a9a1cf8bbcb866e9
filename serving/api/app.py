"""The outermost ASGI application: all routes, and the lifetime of the service behind them."""

import contextlib
from collections.abc import Callable

from serving.api.described.routes import V1Models
from serving.api.jobs import JobRoutes
from serving.api.openapi import with_openapi
from serving.api.pages import PATHS, Pages
from serving.api.probes import Probes
from serving.api.real_image.routes import RealImageRoutes
from serving.api.router import Router
from serving.api.v1 import V1
from serving.api.v2 import routes as v2
from serving.api.v2.routes import V2
from serving.http.auth import OPEN
from serving.http.messages import ASGIApp, Receive, Scope, Send
from serving.http.origins import Origins
from serving.jobs.runner import JobRunner
from serving.jobs.store import JobStore
from serving.process.listening import bind
from serving.process.service import Service
from serving.settings import Settings


class Gateway:
    """The routes, and the service that uvicorn's start makes in each HTTP process.

    Requests never reach LitServe's own application: its middlewares cost more than a small image,
    and one of them would compress images. It gets lifespan events alone.
    """

    def __init__(self, app: ASGIApp, make_service: Callable[[int], Service]) -> None:
        """app: LitServe's. make_service: for an HTTP process, by its index."""
        self._app = app
        self._make_service = make_service
        self._router: Router
        self.service: Service
        self.v1: V1
        self._v2: V2
        self.response_queue_id = 0  # LitServe sets it on the application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Routes a request; starts and stops the service at lifespan events."""
        if scope["type"] == "http":
            await self._router(scope, receive, send)
        elif scope["type"] == "lifespan":
            self.service = self._make_service(self.response_queue_id)
            self.v1 = V1(self.service)
            self._v2 = V2(self.service)
            jobs = jobs_of(self.service.settings)
            settings = self.service.settings
            self._router = Router(
                with_openapi(
                    [
                        *self.v1.routes(),
                        *V1Models(self.service).routes(),
                        *RealImageRoutes(self.service).routes(),
                        *self._v2.routes(),
                        *JobRoutes(self.service, jobs).routes(),
                        *Probes(self.service).routes(),
                        *Pages().routes(),
                    ],
                    settings,
                ),
                root_path=settings.root_path,
                access=self.service.access,
                open_paths=OPEN | PATHS,
                origins=Origins(settings.cors_origins, settings.allowed_hosts),
                recorder=self.service.recorder,
                problem_responses={v2.PREFIX: v2.problem_response},
            )
            async with contextlib.AsyncExitStack() as stack:
                await stack.enter_async_context(self.service.running())
                if jobs is not None:
                    await stack.enter_async_context(JobRunner(self.service, jobs).running())
                if settings.grpc_port:
                    await stack.enter_async_context(self._rpc())
                await self._app(scope, receive, send)

    def _rpc(self) -> contextlib.AbstractAsyncContextManager[None]:
        """The server of gRPC."""
        from serving.api.rpc.admission import Admission  # needs an extra
        from serving.api.rpc.inference import RpcInference
        from serving.rpc.call import Caller
        from serving.rpc.methods import Methods
        from serving.rpc.protocol import Protocol
        from serving.rpc.server import RpcServer

        service = self.service
        settings = service.settings
        caller = Caller(self._router, settings.request_timeout_ms)
        protocol = Protocol("inference.proto")
        infer = RpcInference(service, self._v2, protocol)
        methods = Methods(
            caller,
            Admission(service),
            service.check_ready,
            protocol=protocol,
            infer=infer.start,
            most=infer.most,
        )
        listeners = bind(settings.host, settings.grpc_port, "grpc_port", is_shared=True)
        server = RpcServer(service.connections, methods.by_path())
        return server.running(listeners, settings.drain_timeout_s)


def jobs_of(settings: Settings) -> JobStore | None:
    """Where long jobs are kept; None where none are taken.

    Raises:
        OSError: the folder can't be made.
    """
    if settings.jobs_folder is None:
        return None
    return JobStore(
        settings.jobs_folder,
        max_jobs=settings.max_jobs,
        max_bytes=settings.max_jobs_bytes,
        max_jobs_per_key=settings.max_jobs_per_key,
        max_bytes_per_key=settings.max_jobs_bytes_per_key,
    )
