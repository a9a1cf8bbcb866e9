"""openapi.json: every route of the application, from the schemas and errors that it really uses."""

from typing import Any

import msgspec

from serving.encodings import EncodedImages
from serving.errors import (
    InvalidRequestProblem,
    NotAcceptableProblem,
    UnauthorizedProblem,
    UnavailableProblem,
    UnknownModelProblem,
)
from serving.gate import OPEN
from serving.images import ANIMATIONS, FORMATS, NPY_MEDIA_TYPE, SUFFIXES
from serving.openapi_v2 import paths_v2
from serving.operations import (
    MAKING,
    READING,
    binary,
    content,
    errors,
    get,
    path,
    problems,
    query,
)
from serving.schemas import MAX_TRUNCATION, GenerateRequest
from serving.settings import Settings
from serving.tensors import InferRequest
from serving.walks import InterpolateRequest

VERSION = "0.1.0"
_EXAMPLE = {"seeds": [1, 2, 3, 4], "labels": 0, "layout": "grid"}
_WALK = {"seeds": [1, 2, 3], "label": 0, "frames": 60, "loop": True}


def described(settings: Settings) -> dict[str, Any]:
    """What a server of these settings answers: keys where they are needed, its own routes."""
    description = document()
    paths = description["paths"]
    if settings.metrics_port:
        del paths["/metrics"]
    if settings.api_keys is not None:
        scheme = {"type": "http", "scheme": "bearer"}
        description["components"]["securitySchemes"] = {"key": scheme}
        for path, operations in paths.items():
            for operation in operations.values() if path not in OPEN else ():
                operation["security"] = [{"key": []}]
                told = errors if path.startswith("/v2") else problems
                operation["responses"] |= told((UnauthorizedProblem,))
    return description


def document() -> dict[str, Any]:
    """The OpenAPI 3.1 description of a server without keys."""
    (request, walk, answer, infer), components = msgspec.json.schema_components(
        [GenerateRequest, InterpolateRequest, EncodedImages, InferRequest],
        ref_template="#/components/schemas/{name}",
    )
    generate = _generate(request, answer)
    text = {"200": content("As asked.", {"text/plain": {"schema": {"type": "string"}}})}
    models = {"200": content("Manifest, versions, limits.", {"application/json": {}})}
    listed = models | problems((InvalidRequestProblem,))
    ready = text | problems((UnavailableProblem,))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Saddlepoint",
            "version": VERSION,
            "description": "Latent seeds in, images out; the same bytes for the same seed.",
        },
        "paths": {
            "/v1/generate": {"post": generate | {"operationId": "generate"}},
            "/predict": {"post": generate | {"operationId": "predict"}},
            "/v1/interpolate": {"post": _interpolate(walk)},
            **paths_v2(infer),
            "/v1/models": {"get": get("models", "Every model that is served.", listed)},
            "/v1/models/{model}": {
                "get": get(
                    "model",
                    "One model.",
                    models
                    | problems((InvalidRequestProblem, UnknownModelProblem, UnavailableProblem)),
                    [path("model"), query("version", "integer", "CURRENT if absent")],
                )
            },
            "/v1/models/{model}/images/{file}": {"get": _image()},
            "/livez": {"get": get("livez", "Does the process answer?", text)},
            "/readyz": {"get": get("readyz", "Can images be made?", ready)},
            "/metrics": {"get": get("metrics", "Prometheus metrics.", text)},
        },
        "components": {"schemas": {**components, "Problem": _PROBLEM}},
    }


_PROBLEM = {
    "type": "object",
    "description": "RFC 9457. detail names field, value, what is allowed and the remedy.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
}


def _generate(request: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    images = {entry.media_type: binary() for entry in FORMATS.values()}
    kinds = {**images, NPY_MEDIA_TYPE: binary(), "application/json": {"schema": answer}}
    return {
        "summary": "Images from seeds or latents.",
        "description": "One image, or a grid, answers as an image; several as JSON with base64, "
        "or as one .npy array [N, H, W, C] uint8.",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": request,
                    "examples": {"grid": {"summary": "Four images as one", "value": _EXAMPLE}},
                }
            },
        },
        "responses": {
            "200": content("The images.", kinds),
            **problems((*READING, NotAcceptableProblem)),
        },
    }


def _interpolate(walk: dict[str, Any]) -> dict[str, Any]:
    kinds = {kind: binary() for kind, _ in ANIMATIONS.values()} | {"image/png": binary()}
    example = {"summary": "There and back in three seconds", "value": _WALK}
    return {
        "operationId": "interpolate",
        "summary": "The way from one latent to another.",
        "description": "Frames on the great arcs between waypoints, as an animation or a strip.",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": walk, "examples": {"walk": example}}},
        },
        "responses": {
            "200": content("The walk.", kinds),
            **problems((*READING, NotAcceptableProblem)),
        },
    }


def _image() -> dict[str, Any]:
    psi = f"psi, 0 .. {MAX_TRUNCATION:g}; 1 if absent"
    parameters = [
        path("model"),
        path(
            "file", f"SEED.{', SEED.'.join(SUFFIXES)}", rf"^[0-9]{{1,20}}\.({'|'.join(SUFFIXES)})$"
        ),
        query("label", "integer", "the class, for conditional models"),
        query("truncation", "number", psi),
        query("version", "integer", "CURRENT if absent"),
    ]
    kinds = {entry.media_type: binary() for entry in FORMATS.values()}
    responses = {
        "200": content("The image.", kinds),
        "304": {"description": "The client has it already (If-None-Match)."},
        **problems(MAKING),
    }
    return get("image", "One image as a URL.", responses, parameters)
