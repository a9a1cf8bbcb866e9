"""The methods of the Open Inference Protocol over gRPC, and those of health checks.

Each asks the route of the same meaning over HTTP (`Caller`).
"""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from typing import Any
from typing import Protocol as Interface

import msgspec
from google.protobuf import json_format

from serving.errors import Problem, UnavailableProblem
from serving.rpc.call import Answer, Caller, Target, of_model, refusal_of
from serving.rpc.exchange import Call, Exchange, Method
from serving.rpc.messages import RpcError, Status
from serving.rpc.protocol import Protocol
from serving.rpc.tensors import TensorError, fill, http_body, parameters
from serving.rpc.wire import kind_of, num_bytes

_JSON_LENGTH = b"inference-header-content-length"
_LIVENESS = "liveness"
_WATCH_S = 0.5
_OPEN = frozenset(("ServerLive", "ServerReady", "Check", "Watch"))
"""Methods that need no key, as the routes of the same meaning."""
_KEY_REFUSED = (401, 403)
_MAKING = frozenset(("ModelInfer", "ModelStreamInfer"))
_UNKNOWN, _SERVING, _NOT_SERVING, _SERVICE_UNKNOWN = range(4)


class Admission(Interface):
    """Who is let in; both raise RpcError for who isn't."""

    def check(self, call: Call) -> None:
        """Lets a call in."""
        ...

    def check_making(self, call: Call) -> None:
        """Lets a call in that asks for images."""
        ...


class Methods:
    """What the two services of the protocol answer."""

    def __init__(
        self,
        caller: Caller,
        admission: Admission,
        check_ready: Callable[[], None],
        *,
        protocol: Protocol,
        infer: Callable[[Any, Exchange], bool],
        most: Callable[[str, str, str], int],
    ) -> None:
        """Sets up.

        Args:
            caller: asks the routes.
            admission: says who is let in, before a message is parsed.
            check_ready: raises UnavailableProblem where no images can be made.
            protocol: the messages.
            infer: the shortcut of ModelInfer; False leaves a call to the routes.
            most: the most numbers of an input, by a model's name and version and its own; raises
                Problem where there is no such model.
        """
        self._infer = infer
        self._most = most
        self._caller = caller
        self._admission = admission
        self._check_ready = check_ready
        self._protocol = protocol
        self._health = Protocol("health.proto")

    def by_path(self) -> dict[bytes, Method]:
        """All of them."""
        return {
            f"/{protocol.service}/{name}".encode("ascii"): self._method(protocol, name)
            for protocol in (self._protocol, self._health)
            for name in protocol.methods
        }

    def _method(self, protocol: Protocol, name: str) -> Method:
        described = protocol.methods[name]
        message = protocol.message(described.input_type.rpartition(".")[2])
        admit: Callable[[Call], None] | None = self._admission.check
        if name in _OPEN:
            admit = None
        elif name in _MAKING:
            admit = self._admission.check_making
        return Method(
            getattr(self, name),
            message.FromString,
            functools.partial(num_bytes, kind_of(message.DESCRIPTOR)),
            admit,
            takes_many=described.client_streaming,
            gives_many=described.server_streaming,
            shortcut=self._infer if name == "ModelInfer" else None,
        )

    # Methods have the protocol's names.

    async def ServerLive(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Whether the process answers."""
        return self._made("ServerLiveResponse", live=True)

    async def ServerReady(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Whether images can be made."""
        answer = await self._caller.ask(call, "GET", Target("/v2/health/ready"))
        return self._made("ServerReadyResponse", ready=answer.is_success)

    async def ModelReady(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Whether images of a model can be made."""
        target = of_model(request.name, request.version, "/ready")
        answer = await self._caller.ask(call, "GET", target)
        if not answer.is_success and answer.status != 503:
            raise refusal_of(answer)
        return self._made("ModelReadyResponse", ready=answer.is_success)

    async def ServerMetadata(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Name, version, extensions."""
        answer = await self._asked(call, "GET", Target("/v2"))
        return self._parsed("ServerMetadataResponse", answer.json())

    async def ModelMetadata(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Inputs and outputs."""
        answer = await self._asked(call, "GET", of_model(request.name, request.version))
        return self._parsed("ModelMetadataResponse", answer.json())

    async def ModelConfig(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Configuration."""
        target = of_model(request.name, request.version, "/config")
        answer = await self._asked(call, "GET", target)
        found = answer.json()
        found["version_policy"] = {"specific": found["version_policy"]["specific"]}
        return self._parsed("ModelConfigResponse", {"config": found})

    async def ModelStatistics(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Counts and times."""
        target = Target("/v2/models/stats")
        if request.name:
            target = of_model(request.name, request.version, "/stats")
        answer = await self._asked(call, "GET", target)
        return self._parsed("ModelStatisticsResponse", answer.json())

    async def RepositoryIndex(self, request: Any, call: Call) -> Any:  # noqa: N802
        """Models of the repository."""
        body = msgspec.json.encode({"ready": request.ready})
        answer = await self._asked(call, "POST", Target("/v2/repository/index"), body)
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
        """Makes images of one request after the other; one that fails ends no other.

        Only a key that is refused ends the stream.
        """
        async for request in requests:
            kind = self._protocol.message("ModelStreamInferResponse")
            try:
                answer = await self._inferred(request, call)
            except TensorError as error:
                yield kind(error_message=str(error))
                continue
            if answer.status in _KEY_REFUSED:  # it was withdrawn meanwhile, and won't do again
                raise refusal_of(answer)
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
        name, version = request.model_name, request.model_version
        try:
            body, json_bytes = http_body(request, functools.partial(self._most, name, version))
        except Problem:  # there is no such model, which the route says without a body
            body, json_bytes = b"", 0
        length = (_JSON_LENGTH, b"%d" % json_bytes)
        return await self._caller.ask(call, "POST", of_model(name, version, "/infer"), body, length)

    def _filled(self, answer: Answer) -> Any:
        response = self._protocol.message("ModelInferResponse")()
        return fill(response, answer.body, int(answer.headers[_JSON_LENGTH]))

    async def _control(self, request: Any, call: Call, verb: str) -> None:
        target = Target(f"/v2/repository/models/{{model}}/{verb}", {"model": request.model_name})
        body = msgspec.json.encode({"parameters": parameters(request.parameters)})
        await self._asked(call, "POST", target, body)

    async def _asked(self, call: Call, method: str, target: Target, body: bytes = b"") -> Answer:
        """A route's answer; ends the call where that is a problem."""
        answer = await self._caller.ask(call, method, target, body)
        if not answer.is_success:
            raise refusal_of(answer)
        return answer

    def _made(self, kind: str, **values: Any) -> Any:
        return self._protocol.message(kind)(**values)

    def _parsed(self, kind: str, values: dict[str, Any]) -> Any:
        return json_format.ParseDict(values, self._protocol.message(kind)())
