"""The routes under /v1 that make images from seeds."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from models.latents import MAX_SEED
from serving.api.described.routes import VERSION, integer
from serving.api.operations import JSON, MAKING, MODEL, Content, Operation, in_path, in_query
from serving.api.router import Route
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
from serving.requests.generate import (
    MAX_TRUNCATION,
    GenerateRequest,
    Order,
    decode_request,
    order,
    validated,
)
from serving.requests.interpolate import InterpolateRequest, decode_walk, walk_order
from serving.requests.styles import FIELDS, FROM, LAYERS, TRUNCATION, styles_from_text
from serving.requests.units import units_from_text
from serving.settings import Settings

_EXAMPLE = {"model": "digits", "seeds": [1, 2, 3, 4], "labels": 0, "layout": "grid"}
_WALK = {"model": "digits", "seeds": [1, 2, 3], "label": 0, "frames": 60, "loop": True}
_FILES: Content = {entry.media_type: bytes for entry in FORMATS.values()}
_TEXT: dict[str, Any] = {"type": "string"}
_QUERY = ("label", "truncation", "version", *FIELDS, "units_off")
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
        VERSION,
        in_query(
            "d0",
            {"type": "number"},
            "units of direction 0; d1, d2 ... likewise, and d.NAME by name",
            1.5,
        ),
        in_query(FROM, _TEXT, "the seed that styles.layers are of, for style models"),
        in_query(LAYERS, _TEXT, "numbers of styles with commas, such as 4,5,6"),
        in_query(TRUNCATION, _TEXT, "psi of each style with commas, such as 0.5,0.7,1"),
        in_query("units_off", _TEXT, "units that are off, with commas, such as 3,17"),
    ),
    response="The image.",
    content=_FILES,
    has_etag=True,
    **MAKING | {"problems": (*MAKING["problems"], UnknownRouteProblem)},
)
_IMAGE_HEAD = replace(_IMAGE, id="image_head", summary="Only its headers; no image is made.")


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
        request = decode_request(body, self._catalogue, self._settings)
        ordered = order(request, self._catalogue, self._settings, header(b"accept"))
        return ordered, read_scheduling(header, self._settings)

    async def interpolate(self, request: Request) -> Response:
        """Makes the walk between the latents of an interpolate request."""
        accept = request.header(b"accept")
        ordered = walk_order(
            decode_walk(
                await request.body(self._settings.max_body_bytes), self._catalogue, self._settings
            ),
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
        query = request.query(*_QUERY, pattern=_DIRECTION)
        label, version = (
            None if query.get(name) is None else integer(name, query[name])
            for name in ("label", "version")
        )
        number = integer("seed", seed)
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
            "styles": styles_from_text(query),
            "units_off": units_from_text(query.get("units_off")),
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


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidRequestProblem(f"{name} is {quoted(text)}, must be a number") from None
