"""The routes under /v2 that list, load and unload models, and those that respond with 501."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from models.errors import ModelError
from models.repository import Repository, check_name
from serving.api.operations import JSON, MODEL, MODEL_PROBLEMS, Operation, in_path
from serving.api.router import Handler, Route
from serving.api.schemas import V2IndexEntry
from serving.api.v2.parts import part_names, split_name
from serving.errors import (
    DeadlineProblem,
    InvalidRequestProblem,
    ModelControlProblem,
    UnknownModelProblem,
    UnknownRouteProblem,
    UnsupportedProblem,
    quoted,
)
from serving.http.json_body import Decoded, decode
from serving.http.messages import Request, Response
from serving.process.service import Service
from serving.requests.deadlines import read_scheduling

EXTENSIONS = ("binary_tensor_data", "model_repository", "model_configuration", "statistics")
_UNSUPPORTED = (
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


class V2Repository:
    """The handlers of the model repository extension, for one service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._settings = service.settings
        self._catalogue = service.catalogue
        self._repository = Repository(service.settings.repository)

    def routes(self) -> list[Route]:
        """Lists the routes under /v2/repository."""
        index = Operation(
            id="v2_index",
            summary="Models of the repository, served or not.",
            tag="Model repository",
            body={JSON: IndexRequest},
            body_required=False,
            examples={"ready": ("Only those that are served", {"ready": True})},
            response="Names, versions, states.",
            content={JSON: list[V2IndexEntry]},
        )
        return [
            Route("POST", "/v2/repository/index", self.index, index),
            self._control("unload", self.unload, "Stop serving a model."),
            self._control("load", self.load, "Serve the current version, now."),
        ]

    def _control(self, verb: str, handler: Handler, summary: str) -> Route:
        off = self._settings.model_control == "off"
        operation = Operation(
            id=f"v2_{verb}",
            summary=summary,
            tag="Model repository",
            description="This server runs with --model-control off." if off else "",
            parameters=(MODEL,),
            body={JSON: ControlRequest},
            body_required=False,
            response="" if off else "Done.",
            problems=(ModelControlProblem, *MODEL_PROBLEMS, DeadlineProblem),
        )
        return Route("POST", f"/v2/repository/models/{{model}}/{verb}", handler, operation, True)

    async def index(self, request: Request) -> Response:
        """Lists the models of the repository, and why those are not served that aren't."""
        only_ready = (await self._body(request, _index_decoder)).ready
        served = {entry.manifest.name: entry for entry in self._catalogue.current}
        entries: list[V2IndexEntry] = []
        for name in self._settings.models or self._repository.names():
            if name in served:
                entries.append(V2IndexEntry(name, str(served[name].key[1]), "READY", ""))
                entries += self._candidate(name, only_ready)
                entries += [
                    V2IndexEntry(part, str(served[name].key[1]), "READY", "")
                    for part in part_names(served[name])
                ]
            elif not only_ready:
                reason = self._service.models.why_not(name)
                entries.append(V2IndexEntry(name, "", "UNAVAILABLE", reason))
        return Response.json(entries)

    def _candidate(self, name: str, only_ready: bool) -> list[V2IndexEntry]:
        """The entry of a model's candidate, if it has one."""
        found = self._catalogue.candidacies.get(name)
        if found is None or (only_ready and found.refused):
            return []
        version = "" if found.version is None else str(found.version)
        if found.refused:
            return [V2IndexEntry(name, version, "UNAVAILABLE", found.refused)]
        return [V2IndexEntry(name, version, "READY", f"candidate: {found.share_percent:g}%")]

    async def load(self, request: Request) -> Response:
        """Serves a model again, or what became CURRENT since the repository was last read."""
        name = await self._controlled(request)
        self._service.check_workers()
        scheduling = read_scheduling(request.header, self._settings)
        await self._service.models.put_into_service(name, scheduling.timeout_ms)
        return Response(b"")

    async def unload(self, request: Request) -> Response:
        """Stops serving a model, in every process."""
        name = await self._controlled(request)
        scheduling = read_scheduling(request.header, self._settings)
        await self._service.models.take_out_of_service(name, scheduling.timeout_ms)
        return Response(b"")

    async def _controlled(self, request: Request) -> str:
        """The name in the path, if clients may load and unload this model."""
        parameters = (await self._body(request, _control_decoder)).parameters
        if self._settings.model_control != "clients":
            raise ModelControlProblem(
                "clients may not load or unload models here; "
                "the operator allows it with --model-control clients"
            )
        if others := set(parameters) - {"unload_dependents"}:
            raise InvalidRequestProblem(
                f"parameters has {quoted(', '.join(sorted(others)))}: a model is served as it is "
                "in the repository; leave them out"
            )
        name, part = split_name(request.params["model"])
        if part is not None:
            raise InvalidRequestProblem(
                f"model is {quoted(request.params['model'])}, a part, which is loaded and unloaded "
                f"with its model; name {quoted(name)}"
            )
        try:
            check_name(name)
            known = name in (self._settings.models or self._repository.names())
            # What is loaded can be unloaded, also while its storage is away.
            known = known or name in {served.key[0] for served in self._catalogue.current}
        except ModelError:
            known = False
        if not known:
            raise UnknownModelProblem(f"model is {quoted(name)}, which is not in the repository")
        return name

    async def _body(self, request: Request, decoder: "msgspec.json.Decoder[Decoded]") -> Decoded:
        """Decodes the body, a JSON object; an empty body counts as {}."""
        body = await request.body(self._settings.max_body_bytes)
        return decode(decoder, body if body.strip() else b"{}", example="{}")


def unsupported_routes() -> Iterator[Route]:
    """Lists the protocol's routes for shared memory, traces and logs: they respond with 501."""
    examples = {"model": "digits", "region": "images", "verb": "register"}
    for path in _UNSUPPORTED:
        for method in ("GET", "POST"):
            operation = Operation(
                id=f"{method.lower()}{re.sub(r'[/{}]+', '_', path).rstrip('_')}",
                summary="Not supported: 501.",
                tag="Not supported",
                parameters=tuple(
                    in_path(name, examples[name]) for name in re.findall(r"{(\w+)}", path)
                ),
                problems=(UnsupportedProblem, UnknownRouteProblem),
            )
            yield Route(method, path, _unsupported, operation)


async def _unsupported(request: Request) -> Response:
    raise UnsupportedProblem(
        f"{request.scope['path']} is not supported; this server has the extensions "
        f"{', '.join(EXTENSIONS)}"
    )
