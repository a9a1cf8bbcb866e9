"""The routes of the Open Inference Protocol v2: server, models, inference, statistics.

They include the protocol's binary-data, configuration and statistics extensions;
`serving.api.v2.repository` has the repository extension. Seeds, latents and labels have the rules
of /v1.
"""

import re
from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from serving import VERSION
from serving.api.operations import (
    JSON,
    MAKING,
    MODEL,
    MODEL_PROBLEMS,
    OCTETS,
    Operation,
    Schema,
    in_path,
)
from serving.api.router import Handler, Route
from serving.api.schemas import (
    V2Config,
    V2ConfigTensor,
    V2Error,
    V2Inference,
    V2Model,
    V2Server,
    V2Specific,
    V2Stats,
    V2Tensor,
    V2VersionPolicy,
)
from serving.api.v2 import parts
from serving.api.v2 import tensors as v2_tensors
from serving.api.v2.inference import TensorEncoding, first_seed, metadata, read_order
from serving.api.v2.messages import limits_of
from serving.api.v2.repository import EXTENSIONS, V2Repository, unsupported_routes
from serving.api.v2.statistics import statistics
from serving.dispatch.catalogue import Served
from serving.errors import (
    InvalidRequestProblem,
    Problem,
    UnavailableProblem,
    UnknownModelProblem,
    quoted,
)
from serving.http.messages import Request, Response
from serving.process.service import Service
from serving.requests.deadlines import Scheduling
from serving.requests.generate import MAX_VERSION, Order
from serving.requests.real_image.rules import MAX_IMAGES

PREFIX = "/v2"
JSON_LENGTH = b"inference-header-content-length"

_MODEL = "/v2/models/{model}"
_VERSION = _MODEL + "/versions/{version}"
_INFER = {
    "inputs": [
        {"name": "SEED", "datatype": "UINT64", "shape": [2], "data": [1, 2]},
        {"name": "LABEL", "datatype": "INT64", "shape": [1], "data": [0]},
    ]
}


def problem_response(problem: Problem) -> Response:
    """Renders a problem as this protocol does."""
    body = msgspec.json.encode(V2Error(problem.detail))
    return Response.of_problem(problem, body, JSON)


class V2:
    """The handlers of /v2, for one service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._settings = service.settings
        self._catalogue = service.catalogue

    def routes(self) -> list[Route]:
        """Lists the routes under /v2."""
        version = in_path("version", "1", "a number", r"^[0-9]{1,10}$")
        return [
            _get(PREFIX, self.server, "v2_server", "Name, version, extensions.", V2Server),
            _get("/v2/health/live", self.live, "v2_live", "Does the process answer?"),
            _get(
                "/v2/health/ready",
                self.ready,
                "v2_ready",
                "Can images be made?",
                problems=(UnavailableProblem,),
            ),
            _get(
                "/v2/models/stats", self.stats, "v2_all_stats", "Statistics of all models.", V2Stats
            ),
            *self._of_a_model(_MODEL, "v2_model", (MODEL,)),
            *self._of_a_model(_VERSION, "v2_version", (MODEL, version)),
            *V2Repository(self._service).routes(),
            *unsupported_routes(),
        ]

    def _of_a_model(self, path: str, id: str, parameters: tuple[Schema, ...]) -> list[Route]:
        """Lists the routes of a model, or of one of its versions, below a path."""
        known: dict[str, Any] = {"parameters": parameters, "problems": MODEL_PROBLEMS}
        entries: list[tuple[str, Handler, str, type | None]] = [
            ("", self.model, "Inputs and outputs.", V2Model),
            ("/ready", self.model_ready, "Can it make images?", None),
            ("/config", self.config, "Configuration.", V2Config),
            ("/stats", self.stats, "Statistics of the model.", V2Stats),
        ]
        headers = "Inference-Header-Content-Length"
        infer = Operation(
            id=f"{id}_infer",
            summary="Images from seeds or latents, or latents and scores of images, as tensors.",
            tag="Open Inference Protocol",
            description="Inputs SEED or z, LABEL, TRUNCATION; outputs image and png. Of "
            "NAME:encoder and NAME:score: input image; outputs z, or score and more. With the "
            "binary extension, tensors follow the JSON as bytes.",
            parameters=parameters,
            headers=(*MAKING["headers"], headers),
            body={JSON: v2_tensors.InferRequest, OCTETS: bytes},
            examples={"seeds": ("Two images as JSON", _INFER)},
            response="The outputs.",
            content={JSON: V2Inference, OCTETS: bytes},
            response_headers=(*MAKING["response_headers"], headers),
            problems=MAKING["problems"],
        )
        return [
            *(
                _get(path + end, handler, id + end.replace("/", "_"), summary, kind, **known)
                for end, handler, summary, kind in entries
            ),
            Route("POST", path + "/infer", self.infer, infer, makes_images=True),
        ]

    async def live(self, request: Request) -> Response:
        """Responds as long as the process does."""
        return Response(b"")

    async def ready(self, request: Request) -> Response:
        """Responds with 200 if images can be made, else with 503 and the reason."""
        self._service.check_ready()
        return Response(b"")

    async def server(self, request: Request) -> Response:
        """Names the server, its version and the extensions."""
        return Response.json(V2Server("saddlepoint", VERSION, EXTENSIONS))

    async def model_ready(self, request: Request) -> Response:
        """Responds with 200 if this model can make images."""
        self._described(request)
        self._service.check_ready()
        return Response(b"")

    async def model(self, request: Request) -> Response:
        """Describes a model's inputs and outputs."""
        served, _ = self._served(request)
        described, _ = self._described(request, self._catalogue.versions(served.manifest.name))
        return Response.json(described)

    async def config(self, request: Request) -> Response:
        """Describes a model in the terms of Triton's model configuration."""
        served, part = self._served(request)
        described, optional = self._described(request)
        versions = self._default_versions(served) if part is None else [served.key[1]]
        return Response.json(
            V2Config(
                name=described.name,
                platform=described.platform,
                backend="onnxruntime",
                max_batch_size=0,  # N is a side of the tensors, not a batch around them
                version_policy=V2VersionPolicy(V2Specific(versions)),
                input=[
                    _configured(tensor, optional=tensor.name in optional)
                    for tensor in described.inputs
                ],
                output=[_configured(tensor) for tensor in described.outputs],
            )
        )

    async def stats(self, request: Request) -> Response:
        """Counts what all models did, or the one that the path names."""
        self._service.buffered.flush()
        shared = self._service.shared.metrics
        if "model" not in request.params:
            loaded = [served.key for served in self._catalogue.current]
            return Response.json(V2Stats(statistics(shared, None, also=loaded)))
        described, _ = self._described(request)
        number = self._served(request)[0].key[1]
        version = number if "version" in request.params else None
        also = [(described.name, number)]
        return Response.json(V2Stats(statistics(shared, described.name, version, also=also)))

    async def infer(self, request: Request) -> Response:
        """Makes the images of an inference request, or runs a part of a model for it."""
        self._service.batcher.check_capacity(1)
        served, part = self._served(request)
        limits = self.limits_of(served, part)
        body = await request.body(self._settings.max_body_bytes)
        given = self._read(body, request, limits)
        if part is not None:
            call = parts.read_call(*given, served, part, request.header, self._settings)
            del body, given  # they are not kept in memory meanwhile
            return await parts.run(self._service, request, call)
        order, scheduling = self._order(*given, served, request)
        del body, given
        response = await self._service.make(order, scheduling, request)
        assert isinstance(order.encoding, TensorEncoding)
        return Response(
            response.body, response.media_type, 200, (*response.headers, *order.encoding.headers())
        )

    def _read(
        self, body: bytes | bytearray, request: Request, limits: v2_tensors.Limits
    ) -> tuple[v2_tensors.InferRequest, dict[str, v2_tensors.Array]]:
        length = request.header(JSON_LENGTH)
        if length is not None and (not length.isdigit() or len(length) > 12):
            raise InvalidRequestProblem(
                f"Inference-Header-Content-Length is {quoted(length)}, "
                "must be the number of bytes of the JSON"
            )
        return v2_tensors.read(body, None if length is None else int(length), limits)

    def _order(
        self,
        infer: v2_tensors.InferRequest,
        given: dict[str, v2_tensors.Array],
        served: Served,
        request: Request,
    ) -> tuple[Order, Scheduling]:
        if "version" not in request.params and (seeds := first_seed(given)):
            served = self._catalogue.on_trial(served, seeds)
        return read_order(infer, given, served, request.header, self._settings)

    def _default_versions(self, served: Served) -> list[int]:
        """The versions that serve requests which name none; for any other version, itself."""
        name, version = served.key
        found = self._catalogue.candidacies.get(name)
        current = served in self._catalogue.current
        trial = [found.version] if current and found is not None and not found.refused else []
        return [version, *(number for number in trial if number is not None)]

    def _served(self, request: Request) -> tuple[Served, str | None]:
        """The version that a path names, and the part of it, if it names one."""
        model, part = parts.split_name(request.params["model"])
        return self.resolve(model, request.params.get("version")), part

    def _described(
        self, request: Request, versions: Sequence[int] = ()
    ) -> tuple[V2Model, Collection[str]]:
        """Inputs and outputs of what a path names, and which inputs may be left out."""
        served, part = self._served(request)
        if part is not None:
            return parts.described(served, part, list(versions))
        model = metadata(served, list(versions))
        return model, {tensor.name for tensor in model.inputs}

    def limits(self, name: str, version: str) -> v2_tensors.Limits:
        """What the inputs of a model or its part may have; version: "" for none.

        Raises:
            Problem: there is no such model.
        """
        model, part = parts.split_name(name)
        return self.limits_of(self.resolve(model, version or None), part)

    def limits_of(self, served: Served, part: str | None) -> v2_tensors.Limits:
        """What the inputs of a version, or of its part, may have.

        Raises:
            Problem: it has no such part.
        """
        if part is None:
            return limits_of(metadata(served, []).inputs, self._settings.max_seeds)
        return limits_of(parts.described(served, part, [])[0].inputs, MAX_IMAGES)

    def resolve(self, model: str, version: str | None) -> Served:
        """The version that a request means.

        Raises:
            Problem: there is none.
        """
        if version is not None and not re.fullmatch("[0-9]{1,10}", version):
            raise UnknownModelProblem(
                f"version is {quoted(version)}, versions are whole numbers up to {MAX_VERSION}"
            )
        number = None if version is None else int(version)
        return self._catalogue.resolve(model, number)


def _get(
    path: str, handler: Handler, id: str, summary: str, kind: type | None = None, **more: Any
) -> Route:
    """Declares a GET route that responds with JSON of a kind, or with an empty body."""
    operation = Operation(
        id=id,
        summary=summary,
        tag="Open Inference Protocol",
        response="Yes." if kind is None else "As the protocol says.",
        content={} if kind is None else {JSON: kind},
        **more,
    )
    return Route("GET", path, handler, operation)


def _configured(tensor: V2Tensor, *, optional: bool = False) -> V2ConfigTensor:
    kind = "TYPE_STRING" if tensor.datatype == "BYTES" else f"TYPE_{tensor.datatype}"
    return V2ConfigTensor(tensor.name, kind, tensor.shape, optional)
