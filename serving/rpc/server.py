"""The gRPC server of one HTTP process; all of them listen on the same port."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import msgspec
from google.protobuf import json_format

from serving.errors import UnavailableProblem
from serving.http.auth import AccessControl
from serving.http.memory import Memory
from serving.http.messages import ASGIApp
from serving.rpc.call import Answer, Caller, model_path, refuse
from serving.rpc.protocol import Protocol
from serving.rpc.tensors import TensorError, fill, http_body, parameters
from serving.settings import Settings

logger = logging.getLogger(__name__)

Context = Any
"""grpc.aio.ServicerContext"""

_JSON_LENGTH = b"inference-header-content-length"
_LIVENESS = "liveness"
_WATCH_S = 0.5
_UNKNOWN, _SERVING, _NOT_SERVING, _SERVICE_UNKNOWN = range(4)


class RpcServer:
    """Answers the Open Inference Protocol and health checks."""

    def __init__(
        self,
        settings: Settings,
        app: ASGIApp,
        memory: Memory,
        access: AccessControl,
        check_ready: Callable[[], None],
    ) -> None:
        """Does nothing yet.

        Args:
            settings: the server's.
            app: the routes that answer.
            memory: what all requests together may hold.
            access: who is let in; the routes refuse the others.
            check_ready: raises UnavailableProblem where no images can be made.
        """
        self._settings = settings
        self._caller = Caller(app, memory, settings.request_timeout_ms)
        self._access = access
        self._check_ready = check_ready
        self._protocol = Protocol("inference.proto")
        self._health = Protocol("health.proto")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listens meanwhile; at the end waits for the calls that are being answered.

        Raises:
            OSError: it can't listen.
        """
        settings = self._settings
        server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 1),
                ("grpc.max_receive_message_length", settings.max_body_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ]
        )
        server.add_generic_rpc_handlers(
            (self._handlers(self._protocol, self), self._handlers(self._health, self))
        )
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        try:
            server.add_insecure_port(f"{host}:{settings.grpc_port}")
        except RuntimeError as error:
            raise OSError(f"--grpc-port is {settings.grpc_port}: {error}") from error
        await server.start()
        try:
            yield
        finally:
            await server.stop(settings.drain_timeout_s)

    def _handlers(self, protocol: Protocol, methods: Any) -> grpc.GenericRpcHandler:
        found: dict[str, grpc.RpcMethodHandler] = {}
        for name, described in protocol.methods.items():
            kinds = {
                "request_deserializer": _class(protocol, described.input_type).FromString,
                "response_serializer": _class(protocol, described.output_type).SerializeToString,
            }
            handler = getattr(self, name)
            if described.client_streaming:
                found[name] = grpc.stream_stream_rpc_method_handler(handler, **kinds)
            elif described.server_streaming:
                found[name] = grpc.unary_stream_rpc_method_handler(handler, **kinds)
            else:
                found[name] = grpc.unary_unary_rpc_method_handler(handler, **kinds)
        return grpc.method_handlers_generic_handler(protocol.service, found)

    # Methods have the protocol's names.

    async def ServerLive(self, request: Any, context: Context) -> Any:  # noqa: N802
        """Whether the process answers."""
        return self._made("ServerLiveResponse", live=True)

    async def ServerReady(self, request: Any, context: Context) -> Any:  # noqa: N802
        """Whether images can be made."""
        answer = await self._caller.ask(context, "GET", "/v2/health/ready")
        return self._made("ServerReadyResponse", ready=answer.is_success)

    async def ModelReady(self, request: Any, context: Context) -> Any:  # noqa: N802
        """Whether images of a model can be made."""
        path = model_path(request.name, request.version) + "/ready"
        answer = await self._caller.ask(context, "GET", path)
        if not answer.is_success and answer.status != 503:
            await refuse(context, answer)
        return self._made("ModelReadyResponse", ready=answer.is_success)

    async def ServerMetadata(self, request: Any, context: Context) -> Any:  # noqa: N802
        """Name, version, extensions."""
        answer = await self._asked(context, "GET", "/v2")
        return self._parsed("ServerMetadataResponse", answer.json())

    async def ModelMetadata(self, request: Any, context: Context) -> Any:  # noqa: N802
        """Inputs and outputs."""
        answer = await self._asked(context, "GET", model_path(request.name, request.version))
        return self._parsed("ModelMetadataResponse", answer.json())

    async def ModelConfig(self, request: Any, context: Context) -> Any:  # noqa: N802
        """Configuration."""
        path = model_path(request.name, request.version) + "/config"
        answer = await self._asked(context, "GET", path)
        found = answer.json()
        found["version_policy"] = {"specific": found["version_policy"]["specific"]}
        return self._parsed("ModelConfigResponse", {"config": found})

    async def ModelStatistics(self, request: Any, context: Context) -> Any:  # noqa: N802
        """Counts and times."""
        path = "/v2/models"
        if request.name:
            path = model_path(request.name, request.version)
        answer = await self._asked(context, "GET", f"{path}/stats")
        return self._parsed("ModelStatisticsResponse", answer.json())

    async def RepositoryIndex(self, request: Any, context: Context) -> Any:  # noqa: N802
        """Models of the repository."""
        body = msgspec.json.encode({"ready": request.ready})
        answer = await self._asked(context, "POST", "/v2/repository/index", body)
        return self._parsed("RepositoryIndexResponse", {"models": answer.json()})

    async def RepositoryModelLoad(self, request: Any, context: Context) -> Any:  # noqa: N802
        """Serves a model again."""
        await self._control(request, context, "load")
        return self._made("RepositoryModelLoadResponse")

    async def RepositoryModelUnload(self, request: Any, context: Context) -> Any:  # noqa: N802
        """Stops serving a model."""
        await self._control(request, context, "unload")
        return self._made("RepositoryModelUnloadResponse")

    async def ModelInfer(self, request: Any, context: Context) -> Any:  # noqa: N802
        """Makes images."""
        try:
            answer = await self._inferred(request, context)
        except TensorError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise
        if not answer.is_success:
            await refuse(context, answer)
        return self._filled(answer)

    async def ModelStreamInfer(  # noqa: N802
        self, requests: AsyncIterator[Any], context: Context
    ) -> AsyncIterator[Any]:
        """Makes images of one request after the other; one that fails ends no other."""
        async for request in requests:
            kind = self._protocol.message("ModelStreamInferResponse")
            try:
                answer = await self._inferred(request, context)
            except TensorError as error:
                yield kind(error_message=str(error))
                continue
            if answer.is_success:
                yield kind(infer_response=self._filled(answer))
            else:
                yield kind(error_message=answer.problem)

    async def Check(self, request: Any, context: Context) -> Any:  # noqa: N802
        """Health, as Kubernetes' probes ask; of the service `liveness`: does the process answer?"""
        status = self._status(request.service)
        if status == _SERVICE_UNKNOWN:
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"service is {request.service!r}, known are '', {_LIVENESS} and "
                f"{self._protocol.service}",
            )
        return self._health.message("HealthCheckResponse")(status=status)

    async def Watch(self, request: Any, context: Context) -> AsyncIterator[Any]:  # noqa: N802
        """Health, whenever it changes."""
        last = None
        while True:
            status = self._status(request.service)
            if status != last:
                last = status
                yield self._health.message("HealthCheckResponse")(status=status)
            await asyncio.sleep(_WATCH_S)

    def _status(self, service: str) -> int:
        if service == _LIVENESS:
            return _SERVING
        if service not in ("", self._protocol.service):
            return _SERVICE_UNKNOWN
        try:
            self._check_ready()
        except UnavailableProblem:
            return _NOT_SERVING
        return _SERVING

    async def _inferred(self, request: Any, context: Context) -> Answer:
        # For nobody else are millions of numbers unpacked: the route refuses them without a body.
        body, json_bytes = http_body(request) if self._is_let_in(context) else (b"", 0)
        path = model_path(request.model_name, request.model_version) + "/infer"
        length = (_JSON_LENGTH, b"%d" % json_bytes)
        return await self._caller.ask(context, "POST", path, body, length)

    def _is_let_in(self, context: Context) -> bool:
        header = self._caller.header_of(context)
        return not self._access.keys_required or self._access.find(header) is not None

    def _filled(self, answer: Answer) -> Any:
        response = self._protocol.message("ModelInferResponse")()
        return fill(response, answer.body, int(answer.headers[_JSON_LENGTH]))

    async def _control(self, request: Any, context: Context, verb: str) -> None:
        path = f"/v2/repository/models/{model_path(request.model_name, '')[11:]}/{verb}"
        body = msgspec.json.encode({"parameters": parameters(request.parameters)})
        await self._asked(context, "POST", path, body)

    async def _asked(self, context: Context, method: str, path: str, body: bytes = b"") -> Answer:
        """A route's answer; ends the call where that is a problem."""
        answer = await self._caller.ask(context, method, path, body)
        if not answer.is_success:
            await refuse(context, answer)
        return answer

    def _made(self, kind: str, **values: Any) -> Any:
        return self._protocol.message(kind)(**values)

    def _parsed(self, kind: str, values: dict[str, Any]) -> Any:
        return json_format.ParseDict(values, self._protocol.message(kind)())


def _class(protocol: Protocol, name: str) -> Any:
    return protocol.message(name.rpartition(".")[2])
