"""openapi.json: every route of the application, from the schemas and errors that it really uses."""

from typing import Any

import msgspec

from serving.encodings import EncodedImages
from serving.errors import (
    DeadlineProblem,
    InvalidRequestProblem,
    NotAcceptableProblem,
    NotJsonProblem,
    OverloadedProblem,
    Problem,
    RateLimitedProblem,
    SlowRequestProblem,
    TooLargeProblem,
    UnauthorizedProblem,
    UnavailableProblem,
    UnknownModelProblem,
    UnsupportedEncodingProblem,
)
from serving.gate import OPEN
from serving.images import ANIMATIONS, FORMATS, NPY_MEDIA_TYPE, SUFFIXES
from serving.schemas import MAX_TRUNCATION, GenerateRequest
from serving.settings import Settings
from serving.tensors import InferRequest
from serving.walks import InterpolateRequest

VERSION = "0.1.0"
_MAKING: tuple[type[Problem], ...] = (
    InvalidRequestProblem,
    UnknownModelProblem,
    RateLimitedProblem,
    OverloadedProblem,
    UnavailableProblem,
    DeadlineProblem,
)
_READING = (
    *_MAKING,
    NotJsonProblem,
    SlowRequestProblem,
    TooLargeProblem,
    UnsupportedEncodingProblem,
)
_EXAMPLE = {"seeds": [1, 2, 3, 4], "labels": 0, "layout": "grid"}
_INFER = {
    "inputs": [
        {"name": "SEED", "datatype": "UINT64", "shape": [2], "data": [1, 2]},
        {"name": "LABEL", "datatype": "INT64", "shape": [1], "data": [0]},
    ]
}
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
                told = _errors if path.startswith("/v2") else _problems
                operation["responses"] |= told((UnauthorizedProblem,))
    return description


def document() -> dict[str, Any]:
    """The OpenAPI 3.1 description of a server without keys."""
    (request, walk, answer, infer), components = msgspec.json.schema_components(
        [GenerateRequest, InterpolateRequest, EncodedImages, InferRequest],
        ref_template="#/components/schemas/{name}",
    )
    generate = _generate(request, answer)
    text = {"200": _content("As asked.", {"text/plain": {"schema": {"type": "string"}}})}
    models = {"200": _content("Manifest, versions, limits.", {"application/json": {}})}
    listed = models | _problems((InvalidRequestProblem,))
    ready = text | _problems((UnavailableProblem,))
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
            **_v2(infer),
            "/v1/models": {"get": _get("models", "Every model that is served.", listed)},
            "/v1/models/{model}": {
                "get": _get(
                    "model",
                    "One model.",
                    models
                    | _problems((InvalidRequestProblem, UnknownModelProblem, UnavailableProblem)),
                    [_path("model"), _query("version", "integer", "CURRENT if absent")],
                )
            },
            "/v1/models/{model}/images/{file}": {"get": _image()},
            "/livez": {"get": _get("livez", "Does the process answer?", text)},
            "/readyz": {"get": _get("readyz", "Can images be made?", ready)},
            "/metrics": {"get": _get("metrics", "Prometheus metrics.", text)},
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
    images = {entry.media_type: _binary() for entry in FORMATS.values()}
    content = {**images, NPY_MEDIA_TYPE: _binary(), "application/json": {"schema": answer}}
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
            "200": _content("The images.", content),
            **_problems((*_READING, NotAcceptableProblem)),
        },
    }


def _interpolate(walk: dict[str, Any]) -> dict[str, Any]:
    kinds = {kind: _binary() for kind, _ in ANIMATIONS.values()} | {"image/png": _binary()}
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
            "200": _content("The walk.", kinds),
            **_problems((*_READING, NotAcceptableProblem)),
        },
    }


def _v2(infer: dict[str, Any]) -> dict[str, Any]:
    """The Open Inference Protocol: what of it has a body worth describing."""
    empty = {"200": {"description": "Yes."}}
    listed = {"200": _content("As the protocol says.", {"application/json": {}})}
    model = [_path("model")]
    known = _errors((UnknownModelProblem, UnavailableProblem))
    example = {"summary": "Two images as JSON", "value": _INFER}
    infer_post = {
        "operationId": "infer",
        "summary": "Images from seeds or latents, as tensors.",
        "description": "Inputs SEED or z, LABEL, TRUNCATION; outputs image and png. With the "
        "binary extension, Inference-Header-Content-Length says how long the JSON is.",
        "parameters": model,
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": infer, "examples": {"seeds": example}}},
        },
        "responses": {
            "200": _content(
                "The outputs.", {"application/json": {}, "application/octet-stream": _binary()}
            ),
            **_errors(_READING),
        },
    }
    return {
        "/v2": {"get": _get("v2_server", "Name, version, extensions.", listed)},
        "/v2/health/live": {"get": _get("v2_live", "Does the process answer?", empty)},
        "/v2/health/ready": {
            "get": _get("v2_ready", "Can images be made?", empty | _errors((UnavailableProblem,)))
        },
        "/v2/models/{model}": {
            "get": _get("v2_model", "Inputs and outputs.", listed | known, model)
        },
        "/v2/models/{model}/ready": {
            "get": _get("v2_model_ready", "Can it make images?", empty | known, model)
        },
        "/v2/models/{model}/config": {
            "get": _get("v2_config", "Configuration.", listed | known, model)
        },
        "/v2/models/{model}/stats": {
            "get": _get("v2_stats", "What it did so far.", listed | known, model)
        },
        "/v2/models/{model}/infer": {"post": infer_post},
    }


def _errors(problems: tuple[type[Problem], ...]) -> dict[str, Any]:
    """As the protocol tells them."""
    schema = {
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"type": "string"}},
    }
    return {
        status: {**entry, "content": {"application/json": {"schema": schema}}}
        for status, entry in _problems(problems).items()
    }


def _image() -> dict[str, Any]:
    psi = f"psi, 0 .. {MAX_TRUNCATION:g}; 1 if absent"
    parameters = [
        _path("model"),
        _path(
            "file", f"SEED.{', SEED.'.join(SUFFIXES)}", rf"^[0-9]{{1,20}}\.({'|'.join(SUFFIXES)})$"
        ),
        _query("label", "integer", "the class, for conditional models"),
        _query("truncation", "number", psi),
        _query("version", "integer", "CURRENT if absent"),
    ]
    content = {entry.media_type: _binary() for entry in FORMATS.values()}
    responses = {
        "200": _content("The image.", content),
        "304": {"description": "The client has it already (If-None-Match)."},
        **_problems(_MAKING),
    }
    return _get("image", "One image as a URL.", responses, parameters)


def _get(
    operation: str,
    summary: str,
    responses: dict[str, Any],
    parameters: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    return {
        "operationId": operation,
        "summary": summary,
        "parameters": parameters or [],
        "responses": responses,
    }


def _problems(problems: tuple[type[Problem], ...]) -> dict[str, Any]:
    titles: dict[int, list[str]] = {}
    for problem in problems:
        titles.setdefault(problem.status, []).append(problem.title)
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {
        str(status): _content("; ".join(words), {"application/problem+json": schema})
        for status, words in sorted(titles.items())
    }


def _content(description: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": content}


def _binary() -> dict[str, Any]:
    return {"schema": {"type": "string", "format": "binary"}}


def _path(name: str, description: str = "", pattern: str | None = None) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": {"type": "string"} | ({"pattern": pattern} if pattern else {}),
    }


def _query(name: str, kind: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": {"type": kind}}
