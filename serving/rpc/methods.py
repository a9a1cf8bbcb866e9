"""The methods of the Open Inference Protocol over gRPC, and those of health checks.

Each asks the route of the same meaning over HTTP (`Caller`).
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
from google.protobuf import json_format

from serving.errors import UnavailableProblem
from serving.http.auth import AccessControl
from serving.rpc.call import Answer, Caller, model_path, refusal_of
from serving.rpc.exchange import Call, Exchange, Method
from serving.rpc.messages import RpcError, Status
from serving.rpc.protocol import Protocol
from serving.rpc.tensors import TensorError, fill, http_body, parameters

_JSON_LENGTH = b"inference-header-content-length"
_LIVENESS = "liveness"
_WATCH_S = 0.5
_UNKNOWN, _SERVING, _NOT_SERVING, _SERVICE_UNKNOWN = range(4)


class Methods:
    """What the two services of the protocol answer."""

    def __init__(
        self,
        caller: Caller,
        access: AccessControl,
        check_ready: Callable[[], None],
        *,
        protocol: Protocol,
        infer: Callable[[Any, Exchange], bool],
    ) -> None:
        """Sets up.

        Args:
            caller: asks the routes.
            access: who is let in; the routes refuse the others.
            check_ready: raises UnavailableProblem where no images can be made.
            protocol: the messages.
            infer: the shortcut of ModelInfer; False leaves a call to the routes.
        """
        self._infer = infer
        self._caller = caller
        self._access = access
        self._check_ready = check_ready
        self._protocol = protocol
        self._health = Protocol("health.proto")

    def by_path(self) -> dict[bytes, Method]:
        """All of them."""
        return {
            f"/{protocol.service}/{name}".encode("ascii"): Method(
                getattr(self, name),
                protocol.message(described.input_type.rpartition(".")[2]).FromString,
                takes_many=described.client_streaming,
                gives_many=described.server_streaming,
                shortcut=self._infer if name == "ModelInfer" else None,
            )
            for protocol in (self._protocol, self._health)
            for name, described in protocol.methods.items()
        }

    # Methods have the protocol's names.

    async def ServerLive(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Whether the process answers."""
        return self._made("ServerLiveResponse", live=True)

    async def ServerReady(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Whether images can be made."""
        answer = await self._caller.ask(call, "GET", "/v2/health/ready")
        return self._made("ServerReadyResponse", ready=answer.is_success)

    async def ModelReady(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Whether images of a model can be made."""
        path = model_path(request.name, request.version) + "/ready"
        answer = await self._caller.ask(call, "GET", path)
        if not answer.is_success and answer.status != 503:
            raise refusal_of(answer)
        return self._made("ModelReadyResponse", ready=answer.is_success)

    async def ServerMetadata(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Name, version, extensions."""
        answer = await self._asked(call, "GET", "/v2")
        return self._parsed("ServerMetadataResponse", answer.json())

    async def ModelMetadata(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Inputs and outputs."""
        answer = await self._asked(call, "GET", model_path(request.name, request.version))
        return self._parsed("ModelMetadataResponse", answer.json())

    async def ModelConfig(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Configuration."""
        path = model_path(request.name, request.version) + "/config"
        answer = await self._asked(call, "GET", path)
        found = answer.json()
        found["version_policy"] = {"specific": found["version_policy"]["specific"]}
        return self._parsed("ModelConfigResponse", {"config": found})

    async def ModelStatistics(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Counts and times."""
        path = "/v2/models"
        if request.name:
            path = model_path(request.name, request.version)
        answer = await self._asked(call, "GET", f"{path}/stats")
        return self._parsed("ModelStatisticsResponse", answer.json())

    async def RepositoryIndex(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Models of the repository."""
        body = msgspec.json.encode({"ready": request.ready})
        answer = await self._asked(call, "POST", "/v2/repository/index", body)
        return self._parsed("RepositoryIndexResponse", {"models": answer.json()})

    async def RepositoryModelLoad(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Serves a model again."""
        await self._control(request, call, "load")
        return self._made("RepositoryModelLoadResponse")

    async def RepositoryModelUnload(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Stops serving a model."""
        await self._control(request, call, "unload")
        return self._made("RepositoryModelUnloadResponse")

    async def ModelInfer(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Makes images."""
        try:
            answer = await self._inferred(request, call)
        except TensorError as error:
            raise RpcError(Status.INVALID_ARGUMENT, str(error)) from None
        if not answer.is_success:
            raise refusal_of(answer)
        return self._filled(answer)

    async def ModelStreamInfer(  # noqa: N802
        self, requests: AsyncIterator[Any], call: Call
    ) -> AsyncIterator[Any]:
        """Makes images of one request after the other; one that fails ends no other."""
        async for request in requests:
            kind = self._protocol.message("ModelStreamInferResponse")
            try:
                answer = await self._inferred(request, call)
            except TensorError as error:
                yield kind(error_message=str(error))
                continue
            if answer.is_success:
                yield kind(infer_response=self._filled(answer))
            else:
                yield kind(error_message=answer.problem)

    async def Check(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Health, as Kubernetes' probes ask; of the service `liveness`: does the process answer?"""
        status = self._status(request.service)
        if status == _SERVICE_UNKNOWN:
            raise RpcError(
                Status.NOT_FOUND,
                f"service is {request.service!r}, known are '', {_LIVENESS} and "
                f"{self._protocol.service}",
            )
        return self._health.message("HealthCheckResponse")(status=status)

    async def Watch(self, request: Any, call: Call) -> AsyncIterator[Any]:  # noqa: N802
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

    async def _inferred(self, request: Any, call: Call) -> Answer:
        # For nobody else are millions of numbers unpacked: the route refuses them without a body.
        body, json_bytes = http_body(request) if self._is_let_in(call) else (b"", 0)
        path = model_path(request.model_name, request.model_version) + "/infer"
        length = (_JSON_LENGTH, b"%d" % json_bytes)
        return await self._caller.ask(call, "POST", path, body, length)

    def _is_let_in(self, call: Call) -> bool:
        return not self._access.keys_required or self._access.find(call.header) is not None

    def _filled(self, answer: Answer) -> Any:
        response = self._protocol.message("ModelInferResponse")()
        return fill(response, answer.body, int(answer.headers[_JSON_LENGTH]))

    async def _control(self, request: Any, call: Call, verb: str) -> None:
        path = f"/v2/repository/models/{model_path(request.model_name, '')[11:]}/{verb}"
        body = msgspec.json.encode({"parameters": parameters(request.parameters)})
        await self._asked(call, "POST", path, body)

    async def _asked(self, call: Call, method: str, path: str, body: bytes = b"") -> Answer:
        """A route's answer; ends the call where that is a problem."""
        answer = await self._caller.ask(call, method, path, body)
        if not answer.is_success:
            raise refusal_of(answer)
        return answer

    def _made(self, kind: str, **values: Any) -> Any:
        return self._protocol.message(kind)(**values)

    def _parsed(self, kind: str, values: dict[str, Any]) -> Any:
        return json_format.ParseDict(values, self._protocol.message(kind)())
