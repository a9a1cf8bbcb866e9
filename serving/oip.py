"""Open Inference Protocol v2: seeds or latents in, images out, as the ecosystem's clients speak it.

Routes of the protocol and of its binary-data, repository, configuration and statistics extensions.
The rules for seeds, latents and labels are those of /v1.
"""

import re
from typing import Any

import msgspec

from models.errors import ModelError
from models.repository import Repository, check_name
from serving import VERSION, tensors
from serving.catalogue import Served
from serving.decoding import Decoded, decode
from serving.errors import (
    InvalidRequestProblem,
    ModelControlProblem,
    Problem,
    UnavailableProblem,
    UnknownModelProblem,
    UnsupportedProblem,
)
from serving.http import Exchange, Reply
from serving.inference import InferAnswer, first_seed, metadata, read_order
from serving.router import Handler, Route
from serving.schemas import MAX_VERSION
from serving.service import Service
from serving.statistics import statistics
from serving.wording import shown

PREFIX = "/v2"
EXTENSIONS = ("binary_tensor_data", "model_repository", "model_configuration", "statistics")
JSON_LENGTH = b"inference-header-content-length"

_MODEL = "/v2/models/{model}"
_VERSION = _MODEL + "/versions/{version}"
UNSUPPORTED = (
    "/v2/systemsharedmemory/status",
    "/v2/systemsharedmemory/unregister",
    "/v2/systemsharedmemory/region/{region}/{verb}",
    "/v2/cudasharedmemory/status",
    "/v2/cudasharedmemory/unregister",
    "/v2/cudasharedmemory/region/{region}/{verb}",
    "/v2/trace/setting",
    "/v2/models/{model}/trace/setting",
    "/v2/logging",
)


class IndexRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Which models to list."""

    ready: bool = False
    """Only those that are served."""


class ControlRequest(msgspec.Struct, forbid_unknown_fields=True):
    """How to load or unload a model."""

    parameters: dict[str, Any] = {}


_index_decoder = msgspec.json.Decoder(IndexRequest)
_control_decoder = msgspec.json.Decoder(ControlRequest)


def problem_reply(problem: Problem) -> Reply:
    """A problem as this protocol words it."""
    body = msgspec.json.encode({"error": problem.detail})
    return Reply(body, "application/json", problem.status, problem.headers, reason=problem.slug)


class OIP:
    """One method a route."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._settings = service.settings
        self._catalogue = service.catalogue
        self._repository = Repository(service.settings.repository)

    def routes(self) -> list[Route]:
        """The paths under /v2."""
        both: list[tuple[str, dict[str, Handler]]] = [
            ("", {"GET": self.model}),
            ("/ready", {"GET": self.model_ready}),
            ("/config", {"GET": self.config}),
            ("/stats", {"GET": self.stats}),
            ("/infer", {"POST": self.infer}),
        ]
        return [
            Route(PREFIX, {"GET": self.server}),
            Route("/v2/health/live", {"GET": self.live}),
            Route("/v2/health/ready", {"GET": self.ready}),
            Route("/v2/models/stats", {"GET": self.stats}),
            Route("/v2/repository/index", {"POST": self.index}),
            Route("/v2/repository/models/{model}/load", {"POST": self.load}),
            Route("/v2/repository/models/{model}/unload", {"POST": self.unload}),
            *(Route(_MODEL + path, handlers) for path, handlers in both),
            *(Route(_VERSION + path, handlers) for path, handlers in both),
            *(
                Route(path, {"GET": self.unsupported, "POST": self.unsupported})
                for path in UNSUPPORTED
            ),
        ]

    async def live(self, exchange: Exchange) -> Reply:
        """GET /v2/health/live."""
        return Reply(b"")

    async def ready(self, exchange: Exchange) -> Reply:
        """GET /v2/health/ready."""
        self._service.check_ready()
        return Reply(b"")

    async def server(self, exchange: Exchange) -> Reply:
        """GET /v2."""
        return Reply.json({"name": "saddlepoint", "version": VERSION, "extensions": EXTENSIONS})

    async def model_ready(self, exchange: Exchange) -> Reply:
        """GET /v2/models/{model}/ready."""
        self._served(exchange)
        self._service.check_ready()
        return Reply(b"")

    async def model(self, exchange: Exchange) -> Reply:
        """GET /v2/models/{model}."""
        served = self._served(exchange)
        versions = self._catalogue.versions(served.manifest.name)
        return Reply.json(metadata(served, versions))

    async def config(self, exchange: Exchange) -> Reply:
        """GET /v2/models/{model}/config."""
        served = self._served(exchange)
        described = metadata(served, [])
        return Reply.json(
            {
                "name": described["name"],
                "platform": described["platform"],
                "backend": "onnxruntime",
                "max_batch_size": 0,  # N is a side of the tensors, not a batch around them
                "version_policy": {"specific": {"versions": self._specific(served)}},
                "input": [_configured(tensor, optional=True) for tensor in described["inputs"]],
                "output": [_configured(tensor) for tensor in described["outputs"]],
            }
        )

    async def stats(self, exchange: Exchange) -> Reply:
        """GET /v2/models/stats, and of one model."""
        self._service.tallies.flush()
        if "model" not in exchange.params:
            loaded = [served.key for served in self._catalogue.current]
            return Reply.json({"model_stats": statistics(None, also=loaded)})
        served = self._served(exchange)
        name, number = served.key
        version = number if "version" in exchange.params else None
        return Reply.json({"model_stats": statistics(name, version, also=[served.key])})

    async def infer(self, exchange: Exchange) -> Reply:
        """POST /v2/models/{model}/infer."""
        self._service.batcher.check_room(1)
        served = self._served(exchange)
        body = await exchange.body(self._settings.max_body_bytes)
        length = exchange.header(JSON_LENGTH)
        if length is not None and (not length.isdigit() or len(length) > 12):
            raise InvalidRequestProblem(
                f"Inference-Header-Content-Length is {shown(length)}, "
                "must be the number of bytes of the JSON"
            )
        json_bytes = None if length is None else int(length)
        request, given = tensors.read(body, json_bytes)
        if "version" not in exchange.params and (seeds := first_seed(given)):
            served = self._catalogue.on_trial(served, seeds)
        order, terms = read_order(request, given, served, exchange, self._settings)
        reply = await self._service.make(order, terms, exchange)
        assert isinstance(order.encoding, InferAnswer)
        return Reply(reply.body, reply.media_type, 200, (*reply.headers, *order.encoding.headers()))

    async def index(self, exchange: Exchange) -> Reply:
        """POST /v2/repository/index."""
        only_ready = (await self._body(exchange, _index_decoder)).ready
        served = {entry.manifest.name: entry for entry in self._catalogue.current}
        entries: list[dict[str, Any]] = []
        for name in self._settings.models or self._repository.names():
            if name in served:
                version = str(served[name].key[1])
                entries.append({"name": name, "version": version, "state": "READY", "reason": ""})
                entries += self._index_of_trial(name, only_ready)
            elif not only_ready:
                reason = self._service.why_not(name)
                entry = {"name": name, "version": "", "state": "UNAVAILABLE", "reason": reason}
                entries.append(entry)
        return Reply.json(entries)

    def _index_of_trial(self, name: str, only_ready: bool) -> list[dict[str, Any]]:
        """An entry for a model's candidate, if it has one."""
        found = self._catalogue.candidacies.get(name)
        if found is None or (only_ready and found.refused):
            return []
        entry = {"name": name, "version": "" if found.version is None else str(found.version)}
        if found.refused:
            return [entry | {"state": "UNAVAILABLE", "reason": found.refused}]
        return [entry | {"state": "READY", "reason": f"candidate: {found.share_percent:g}%"}]

    def _specific(self, served: Served) -> list[int]:
        """Versions that answer where none is named; the one that is, alone, of another."""
        name, version = served.key
        found = self._catalogue.candidacies.get(name)
        current = served in self._catalogue.current
        trial = [found.version] if current and found is not None and not found.refused else []
        return [version, *(number for number in trial if number is not None)]

    async def load(self, exchange: Exchange) -> Reply:
        """POST /v2/repository/models/{model}/load."""
        name = await self._controlled(exchange)
        self._service.check_workers()
        complaint = await self._service.put_into_service(name)
        if complaint:
            raise UnavailableProblem(f"model {name!r} is refused: {complaint}")
        return Reply(b"")

    async def unload(self, exchange: Exchange) -> Reply:
        """POST /v2/repository/models/{model}/unload."""
        name = await self._controlled(exchange)
        await self._service.take_out_of_service(name)
        return Reply(b"")

    async def unsupported(self, exchange: Exchange) -> Reply:
        """Shared memory, trace and logging settings."""
        raise UnsupportedProblem(
            f"{exchange.scope['path']} is not supported; this server has the extensions "
            f"{', '.join(EXTENSIONS)}"
        )

    async def _controlled(self, exchange: Exchange) -> str:
        """The model that may be loaded or unloaded."""
        parameters = (await self._body(exchange, _control_decoder)).parameters
        if self._settings.model_control != "clients":
            raise ModelControlProblem(
                "clients may not load or unload models here; "
                "the operator allows it with --model-control clients"
            )
        if others := set(parameters) - {"unload_dependents"}:
            raise InvalidRequestProblem(
                f"parameters has {shown(', '.join(sorted(others)))}: a model is served as it lies "
                "in the repository; leave them out"
            )
        name = exchange.params["model"]
        try:
            check_name(name)
            known = name in (self._settings.models or self._repository.names())
        except ModelError:
            known = False
        if not known:
            raise UnknownModelProblem(f"model is {shown(name)}, which is not in the repository")
        return name

    async def _body(self, exchange: Exchange, decoder: "msgspec.json.Decoder[Decoded]") -> Decoded:
        """The body, a JSON object or nothing."""
        body = await exchange.body(self._settings.max_body_bytes)
        return decode(decoder, body if body.strip() else b"{}", example="{}")

    def _served(self, exchange: Exchange) -> Served:
        version = exchange.params.get("version")
        if version is not None and not re.fullmatch("[0-9]{1,10}", version):
            raise UnknownModelProblem(
                f"version is {shown(version)}, versions are whole numbers up to {MAX_VERSION}"
            )
        number = None if version is None else int(version)
        return self._catalogue.resolve(exchange.params["model"], number)


def _configured(tensor: dict[str, Any], *, optional: bool = False) -> dict[str, Any]:
    kind = "TYPE_STRING" if tensor["datatype"] == "BYTES" else f"TYPE_{tensor['datatype']}"
    entry = {"name": tensor["name"], "data_type": kind, "dims": tensor["shape"]}
    return {**entry, "optional": True} if optional else entry
