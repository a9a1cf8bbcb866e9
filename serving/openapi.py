"""openapi.json: every route of the application, from the types and errors that it really uses.

Its examples ask for the model `digits`, which is conditional; `/docs` puts the model that is served
in its place.
"""

import functools
from typing import Any

import msgspec

from serving import VERSION
from serving.encodings import EncodedImages
from serving.errors import (
    InvalidRequestProblem,
    NotAcceptableProblem,
    UnauthorizedProblem,
    UnavailableProblem,
    UnknownModelProblem,
    UnknownRouteProblem,
)
from serving.gate import OPEN
from serving.images import ANIMATIONS, FORMATS, NPY_MEDIA_TYPE, SUFFIXES
from serving.oip import ControlRequest, IndexRequest
from serving.openapi_answers import ANSWERS, Model, Models
from serving.openapi_v2 import CONTROL, paths_v2, unsupported
from serving.operations import (
    BODY,
    MAKING,
    OF_A_MODEL,
    TERMS,
    Schema,
    answer,
    binary,
    bodiless,
    errors,
    header_components,
    json_of,
    operation,
    path,
    problems,
    query,
    schema_of,
    text,
)
from serving.schemas import MAX_TRUNCATION, MAX_VERSION, GenerateRequest
from serving.settings import Settings
from serving.site import PATHS
from serving.tensors import InferRequest
from serving.walks import InterpolateRequest

_REQUESTS = (GenerateRequest, InterpolateRequest, InferRequest, IndexRequest, ControlRequest)
_EXAMPLE = {"model": "digits", "seeds": [1, 2, 3, 4], "labels": 0, "layout": "grid"}
_WALK = {"model": "digits", "seeds": [1, 2, 3], "label": 0, "frames": 60, "loop": True}
_MODEL = path("model", "digits", "its name")
_VERSION = query(
    "version",
    {"type": "integer", "minimum": 1, "maximum": MAX_VERSION},
    "CURRENT if absent, or what is on trial",
    1,
)
_MADE = (*OF_A_MODEL, "Server-Timing")
_KEPT = ("ETag", "Cache-Control")


@functools.lru_cache(1)
def described(settings: Settings) -> Schema:
    """What a server of these settings answers: keys where they are needed, its own routes."""
    description = document()
    paths, components = description["paths"], description["components"]
    timeout = components["parameters"]["X-Request-Timeout-Ms"]
    timeout["schema"]["maximum"] = settings.request_timeout_ms
    if settings.metrics_port:
        del paths["/metrics"]
    if settings.model_control == "off":
        for verb in CONTROL:
            paths[verb]["post"]["description"] = "This server runs with --model-control off."
            del paths[verb]["post"]["responses"]["200"]
    if settings.api_keys is not None:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path_, operations in paths.items():
            for method, entry in operations.items() if path_ not in OPEN | PATHS else ():
                told = errors if path_.startswith("/v2") else problems
                told = bodiless if method == "head" else told
                entry["responses"] |= told((UnauthorizedProblem,))
                entry["security"] = [{"key": []}]
    return description


def document() -> Schema:
    """The OpenAPI 3.1 description of a server without keys."""
    _, schemas = msgspec.json.schema_components(
        [*_REQUESTS, EncodedImages, *ANSWERS],
        ref_template="#/components/schemas/{name}",
    )
    rooms = {
        "Images": _images(),
        "Models": _models(),
        **paths_v2(),
        "Probes and metrics": _probes(),
        "Pages": _pages(),
        "Not supported": unsupported(),
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Saddlepoint",
            "version": VERSION,
            "description": "Latent seeds in, images out; the same bytes for the same seed. "
            "Every GET answers HEAD too.",
        },
        "tags": [{"name": name} for name in rooms],
        "paths": {
            path_: {method: {"tags": [name], **entry} for method, entry in operations.items()}
            for name, paths in rooms.items()
            for path_, operations in paths.items()
        },
        "components": {"schemas": schemas, **header_components()},
    }


def _images() -> Schema:
    return {
        "/v1/generate": {"post": _generate("generate", "Images from seeds or latents.")},
        "/predict": {"post": _generate("predict", "The same, at LitServe's own path.")},
        "/v1/interpolate": {"post": _interpolate()},
        "/v1/models/{model}/images/{file}": {
            "get": _image("image", "One image as a URL."),
            "head": _image("image_head", "Its headers alone; nothing is made.", head=True),
        },
    }


def _generate(name: str, summary: str) -> Schema:
    kinds: dict[str, Any] = {entry.media_type: binary() for entry in FORMATS.values()}
    kinds |= {NPY_MEDIA_TYPE: binary(), **json_of(schema_of(EncodedImages))}
    example = ("Four images as one", _EXAMPLE)
    return operation(
        name,
        summary,
        {"200": answer("The images.", kinds, _MADE)},
        (*MAKING, *BODY, NotAcceptableProblem),
        headers=TERMS,
        body={"required": True, "content": json_of(schema_of(GenerateRequest), grid=example)},
    ) | {
        "description": "One image, or a grid, answers as an image; several as JSON with base64, "
        "or as one .npy array [N, H, W, C] uint8."
    }


def _interpolate() -> Schema:
    kinds = {kind: binary() for kind, _ in ANIMATIONS.values()} | {"image/png": binary()}
    example = ("There and back in three seconds", _WALK)
    return operation(
        "interpolate",
        "The way from one latent to another.",
        {"200": answer("The walk.", kinds, _MADE)},
        (*MAKING, *BODY, NotAcceptableProblem),
        headers=TERMS,
        body={"required": True, "content": json_of(schema_of(InterpolateRequest), walk=example)},
    ) | {"description": "Frames on the great arcs between waypoints: an animation or a strip."}


def _image(name: str, summary: str, *, head: bool = False) -> Schema:
    psi = f"psi, 0 .. {MAX_TRUNCATION:g}; 1 if absent"
    suffixes = rf"^[0-9]{{1,20}}\.({'|'.join(SUFFIXES)})$"
    kinds = {entry.media_type: binary() for entry in FORMATS.values()}
    return operation(
        name,
        summary,
        {
            "200": answer("The image.", None if head else kinds, (*_MADE, *_KEPT)),
            "304": answer("The client has it already.", None, _KEPT),
        },
        (*MAKING, UnknownRouteProblem),
        parameters=[
            _MODEL,
            path("file", "42.png", f"SEED.{', SEED.'.join(SUFFIXES)}", suffixes),
            query("label", {"type": "integer"}, "the class, for conditional models", 0),
            query("truncation", {"type": "number"}, psi, 0.7),
            _VERSION,
        ],
        headers=(*TERMS, "If-None-Match"),
        told=bodiless if head else problems,
    )


def _models() -> Schema:
    return {
        "/v1/models": {
            "get": operation(
                "models",
                "Every model that is served.",
                {"200": answer("Manifests, versions, limits.", json_of(schema_of(Models)))},
                (InvalidRequestProblem,),
            )
        },
        "/v1/models/{model}": {
            "get": operation(
                "model",
                "One model.",
                {"200": answer("Manifest, versions, limits.", json_of(schema_of(Model)))},
                (InvalidRequestProblem, UnknownModelProblem, UnavailableProblem),
                parameters=[_MODEL, _VERSION],
            )
        },
    }


def _probes() -> Schema:
    said = {"200": answer("ok", text())}
    ready = "Can images be made?"
    return {
        "/livez": {"get": operation("livez", "Does the process answer?", said)},
        "/readyz": {"get": operation("readyz", ready, said, (UnavailableProblem,))},
        "/health": {
            "get": operation("health", f"{ready} LitServe's path.", said, (UnavailableProblem,))
        },
        "/metrics": {
            "get": operation("metrics", "Prometheus metrics.", {"200": answer("As text.", text())})
        },
    }


def _pages() -> Schema:
    page = {
        "200": answer("The page.", text("text/html"), _KEPT),
        "304": answer("The client has it already.", None, _KEPT),
    }
    described = {"200": answer("OpenAPI 3.1.", json_of({"type": "object"}))}
    tagged = ("If-None-Match",)
    return {
        "/": {"get": operation("playground", "A playground.", page, headers=tagged)},
        "/docs": {"get": operation("docs", "This description.", page, headers=tagged)},
        "/openapi.json": {"get": operation("openapi", "The same, for programs.", described)},
    }
