"""The routes under /v1: they make images from seeds, and describe the models."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from models.bundle import ENCODER
from models.bundle.anomaly import SCORE
from models.bundle.directions import (
    DIRECTIONS,
    IN_Z,
    MAX_AMOUNT,
    SETS,
    Applied,
    Directions,
    DirectionSet,
)
from models.bundle.styles import STYLES, has_styles
from models.bundle.units import UNITS
from models.errors import BundleError
from models.latents import MAX_SEED
from serving.api.operations import (
    JSON,
    MAKING,
    MODEL,
    MODEL_PROBLEMS,
    Content,
    Operation,
    in_path,
    in_query,
)
from serving.api.router import Route
from serving.api.schemas import (
    Candidate,
    Direction,
    Encoder,
    Evidence,
    Limits,
    Model,
    ModelDirections,
    Models,
)
from serving.dispatch.catalogue import Served
from serving.encoding.bodies import EncodedImages
from serving.encoding.formats import ANIMATIONS, FORMATS, NPY_MEDIA_TYPE, SUFFIXES
from serving.errors import (
    InvalidRequestProblem,
    NotAcceptableProblem,
    UnknownRouteProblem,
    quoted,
)
from serving.http.conditional import etag, lifetime, matches
from serving.http.messages import Headers, Request, Response
from serving.process.service import Service
from serving.requests.deadlines import Scheduling, read_scheduling
from serving.requests.directions import directions_of
from serving.requests.generate import (
    MAX_TRUNCATION,
    MAX_VERSION,
    GenerateRequest,
    Order,
    decode_request,
    order,
    validated,
)
from serving.requests.interpolate import InterpolateRequest, decode_walk, walk_order
from serving.settings import Settings

_EXAMPLE = {"model": "digits", "seeds": [1, 2, 3, 4], "labels": 0, "layout": "grid"}
_WALK = {"model": "digits", "seeds": [1, 2, 3], "label": 0, "frames": 60, "loop": True}
_FILES: Content = {entry.media_type: bytes for entry in FORMATS.values()}
_VERSION = in_query(
    "version",
    {"type": "integer", "minimum": 1, "maximum": MAX_VERSION},
    "CURRENT if absent, or the candidate",
    1,
)
_PARTS = {
    "directions": DIRECTIONS,
    "styles": STYLES,
    "units": UNITS,
    "encoder": ENCODER,
    "score": SCORE,
}
_DIRECTION = re.compile(r"d([0-9]{1,6})|d\.(?![0-9]+$)(.{1,100})", re.DOTALL)
_GENERATE = Operation(
    id="generate",
    summary="Images from seeds or latents.",
    tag="Images",
    description="One image or a grid is sent as an image file; several images as JSON with "
    "base64, or as one .npy array [N, H, W, C] uint8.",
    body={JSON: GenerateRequest},
    examples={"grid": ("Four images as one", _EXAMPLE)},
    response="The images.",
    content={**_FILES, NPY_MEDIA_TYPE: bytes, JSON: EncodedImages},
    **MAKING | {"problems": (*MAKING["problems"], NotAcceptableProblem)},
)
_PREDICT = replace(_GENERATE, id="predict", summary="The same, at LitServe's own path.")
_INTERPOLATE = replace(
    _GENERATE,
    id="interpolate",
    summary="A walk from latent to latent.",
    description="Frames on the great arcs between the waypoints, as an animation or a strip.",
    body={JSON: InterpolateRequest},
    examples={"walk": ("There and back in three seconds", _WALK)},
    response="The walk.",
    content={**{kind: bytes for kind, _ in ANIMATIONS.values()}, "image/png": bytes},
)
_IMAGE = Operation(
    id="image",
    summary="One image as a URL.",
    tag="Images",
    parameters=(
        MODEL,
        in_path(
            "file",
            "42.png",
            f"SEED.{', SEED.'.join(SUFFIXES)}",
            rf"^[0-9]{{1,20}}\.({'|'.join(SUFFIXES)})$",
        ),
        in_query("label", {"type": "integer"}, "the class, for conditional models", 0),
        in_query(
            "truncation", {"type": "number"}, f"psi, 0 .. {MAX_TRUNCATION:g}; 1 if absent", 0.7
        ),
        _VERSION,
        in_query(
            "d0",
            {"type": "number"},
            "units of direction 0; d1, d2 ... likewise, and d.NAME by name",
            1.5,
        ),
    ),
    response="The image.",
    content=_FILES,
    has_etag=True,
    **MAKING | {"problems": (*MAKING["problems"], UnknownRouteProblem)},
)
_IMAGE_HEAD = replace(_IMAGE, id="image_head", summary="Only its headers; no image is made.")
_MODELS = Operation(
    id="models",
    summary="Every model that is served.",
    tag="Models",
    response="Manifests, versions, limits.",
    content={JSON: Models},
    problems=(InvalidRequestProblem,),
)
_MODEL = Operation(
    id="model",
    summary="One model.",
    tag="Models",
    parameters=(MODEL, _VERSION),
    response="Manifest, versions, limits.",
    content={JSON: Model},
    problems=(InvalidRequestProblem, *MODEL_PROBLEMS),
)


_DIRECTIONS = Operation(
    id="directions",
    summary="The directions of a model's latent space.",
    tag="Models",
    description="In which the pixels change most, with what was measured to follow them. A name is "
    "given only where a measure follows with a rank correlation above .6.",
    parameters=(MODEL, _VERSION),
    response="Directions, the strongest first.",
    content={JSON: ModelDirections},
    problems=(InvalidRequestProblem, *MODEL_PROBLEMS),
)


class V1:
    """The handlers of /v1, for one service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._settings: Settings = service.settings
        self._catalogue = service.catalogue

    def routes(self) -> list[Route]:
        """Lists the routes under /v1, and LitServe's own /predict."""
        image = "/v1/models/{model}/images/{file}"
        return [
            Route("POST", "/v1/generate", self.generate, _GENERATE, makes_images=True),
            Route("POST", "/predict", self.generate, _PREDICT, makes_images=True),
            Route("POST", "/v1/interpolate", self.interpolate, _INTERPOLATE, makes_images=True),
            Route("GET", image, self.image, _IMAGE, makes_images=True),
            Route("HEAD", image, self.image, _IMAGE_HEAD),
            Route("GET", "/v1/models", self.models, _MODELS),
            Route("GET", "/v1/models/{model}", self.model, _MODEL),
            Route("GET", "/v1/models/{model}/directions", self.directions, _DIRECTIONS),
        ]

    async def generate(self, request: Request) -> Response:
        """Makes the images of a generate request."""
        # No name holds the body: it is not kept in memory while the images are made.
        ordered, terms = self.read_order(
            await request.body(self._settings.max_body_bytes), request.header
        )
        return await self._service.make(ordered, terms, request)

    def read_order(
        self, body: bytes | bytearray, header: Callable[[bytes], bytes | None]
    ) -> tuple[Order, Scheduling]:
        """Reads a generate request: what to make, its deadline and its priority.

        Raises:
            Problem: it is invalid, or the queue is full.
        """
        self._service.batcher.check_capacity(1)  # a full queue must not cost any parsing
        request = decode_request(body)
        ordered = order(request, self._catalogue, self._settings, header(b"accept"))
        return ordered, read_scheduling(header, self._settings)

    async def interpolate(self, request: Request) -> Response:
        """Makes the walk between the latents of an interpolate request."""
        accept = request.header(b"accept")
        ordered = walk_order(
            decode_walk(await request.body(self._settings.max_body_bytes)),
            *(self._catalogue, self._settings, accept),
        )
        terms = read_scheduling(request.header, self._settings, bulk=True)
        return await self._service.make(ordered, terms, request)

    async def image(self, request: Request) -> Response:
        """Makes the image of the seed in the path, unless the client has it; HEAD makes none."""
        seed, _, suffix = request.params["file"].partition(".")
        if suffix not in SUFFIXES:
            raise UnknownRouteProblem(
                f"file is {quoted(request.params['file'])}; ask for SEED.{', SEED.'.join(SUFFIXES)}"
            )
        query = request.query("label", "truncation", "version", pattern=_DIRECTION)
        label, version = (
            None if query.get(name) is None else _integer(name, query[name])
            for name in ("label", "version")
        )
        number = _integer("seed", seed)
        if not 0 <= number <= MAX_SEED:
            raise InvalidRequestProblem(f"seed is {seed}, allowed are 0 .. {MAX_SEED} (2**64 - 1)")
        fields: dict[str, Any] = {
            "model": request.params["model"],
            "version": version,
            "seeds": [number],
            "labels": label,
            "truncation": _number("truncation", query.get("truncation", "1")),
            "directions": {
                found[1] or found[2]: _number(name, text)
                for name, text in query.items()
                if (found := _DIRECTION.fullmatch(name))
            },
            "format": SUFFIXES[suffix],
        }
        ordered = order(validated(fields), self._catalogue, self._settings, label_field="label")
        terms = read_scheduling(request.header, self._settings)
        tag = etag(ordered.image_keys[0], described=self._settings.image_metadata)
        kept = lifetime(pinned=version is not None, public=not self._service.access.keys_required)
        headers: Headers = ((b"etag", tag), (b"cache-control", kept))
        if matches(request.header(b"if-none-match"), tag):
            return Response(b"", status=304, headers=headers, sized=False)
        response = self._service.encoder.cached(ordered, request.context)
        if response is None and request.method == "HEAD":  # don't make an image only to drop it
            headers += ordered.served.headers
            return Response(b"", ordered.encoding.media_type, headers=headers, sized=False)
        if response is None:
            response = await self._service.make(ordered, terms, request)
        return replace(response, headers=(*response.headers, *headers))

    async def models(self, request: Request) -> Response:
        """Describes every model that is served."""
        request.query()
        return Response.json(Models([self._describe(served) for served in self._catalogue.current]))

    async def model(self, request: Request) -> Response:
        """Describes one model, in the version that the query names or that is served."""
        query = request.query("version")
        version = None if "version" not in query else _integer("version", query["version"])
        served = self._catalogue.resolve(request.params["model"], version)
        return Response.json(self._describe(served))

    async def directions(self, request: Request) -> Response:
        """Lists the directions of one model, with their evidence."""
        query = request.query("version")
        version = None if "version" not in query else _integer("version", query["version"])
        served = self._catalogue.resolve(request.params["model"], version)
        return Response.json(model_directions(served))

    def _describe(self, served: Served) -> Model:
        manifest, settings = served.manifest, self._settings
        name, version = served.key
        return Model(
            name=name,
            version=version,
            digest=served.bundle.digest,
            versions=self._catalogue.versions(name),
            candidate=self._candidate(name),
            z_dim=manifest.z_dim,
            image=manifest.image,
            labels=manifest.labels,
            parts=[name for name, file in _PARTS.items() if file in manifest.files],
            encoder=_encoder(served),
            recipe=manifest.recipe,
            dataset=manifest.dataset,
            metrics=manifest.metrics,
            created=manifest.created,
            limits=Limits(
                max_seeds=settings.max_seeds,
                max_frames=settings.max_frames,
                max_image_pixels=settings.max_image_pixels,
                max_input_pixels=settings.max_input_pixels,
                max_body_bytes=settings.max_body_bytes,
                request_timeout_ms=settings.request_timeout_ms,
            ),
        )

    def _candidate(self, name: str) -> Candidate | None:
        found = self._catalogue.candidacies.get(name)
        if found is None:
            return None
        return Candidate(
            version=found.version,
            share_percent=found.share_percent,
            digest=found.digest or None,
            refused=found.refused or None,
        )


def _encoder(served: Served) -> Encoder | None:
    """What a version's encoder can do; None where that can't be known."""
    try:
        traits, calibration = served.encoder, served.calibration
    except BundleError:
        return None
    if traits is None:
        return None
    label: Literal["none", "needed", "found"] = "none"
    if served.manifest.conditional:
        label = "found" if traits.infers_label else "needed"
    num = 0 if calibration is None else len(calibration.scores)
    return Encoder(label, traits.fills, traits.varies, num)


def _integer(name: str, text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,39}", text):
        raise InvalidRequestProblem(f"{name} is {quoted(text)}, must be a whole number")
    return int(text)


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidRequestProblem(f"{name} is {quoted(text)}, must be a number") from None


_NUM_TOLD = 3


def model_directions(served: Served) -> ModelDirections:
    """The directions of a version that requests can name.

    Raises:
        InvalidRequestProblem: it has none.
        UnavailableProblem: they can't be read.
    """
    found = directions_of(served)
    name, version = served.key
    return ModelDirections(
        name=name,
        version=version,
        digest=served.bundle.digest,
        max_amount=MAX_AMOUNT,
        directions=[
            each
            for kind in (SETS if has_styles(served.manifest) else IN_Z)
            if kind in found.sets
            for each in _directions(found, kind)
        ],
    )


def _directions(found: Directions, kind: str) -> Iterator[Direction]:
    each = found.sets[kind]
    if each.steps.ndim == 2:
        for number in range(each.num):
            yield _direction(found, kind, each, (number,), None)
        return
    for label in range(len(each.steps)):
        for number in range(each.num):
            yield _direction(found, kind, each, (label, number), label)


def _direction(
    found: Directions, kind: str, each: DirectionSet, at: tuple[int, ...], label: int | None
) -> Direction:
    values, rho = each.eigenvalues[at[:-1]], each.evidence[at]
    closest = np.argsort(-np.abs(rho), kind="stable")[:_NUM_TOLD]
    return Direction(
        key=Applied(kind, at[-1], 0).key,
        name=str(each.names[at]) or None,
        label=label,
        share=round(float(each.eigenvalues[at] / max(float(values.sum()), 1e-12)), 4),
        evidence=[Evidence(found.concepts[i], round(float(rho[i]), 3)) for i in closest],
    )
