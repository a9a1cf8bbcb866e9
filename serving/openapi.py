"""openapi.json: every route of the application, from the schemas and errors that it really uses."""

from typing import Any

from serving.errors import (
    DeadlineProblem,
    InvalidRequestProblem,
    NotJsonProblem,
    OverloadedProblem,
    Problem,
    RateLimitedProblem,
    SlowRequestProblem,
    TooLargeProblem,
    UnauthorizedProblem,
    UnavailableProblem,
    UnknownModelProblem,
)
from serving.gate import OPEN
from serving.images import FORMATS, NPY_MEDIA_TYPE, SUFFIXES
from serving.schemas import MAX_TRUNCATION, schemas
from serving.settings import Settings

_VERSION = "0.1.0"
_MAKING: tuple[type[Problem], ...] = (
    InvalidRequestProblem,
    UnknownModelProblem,
    RateLimitedProblem,
    OverloadedProblem,
    UnavailableProblem,
    DeadlineProblem,
)
_EXAMPLE = {"seeds": [1, 2, 3, 4], "labels": 0, "layout": "grid"}


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
                operation["responses"] |= _problems((UnauthorizedProblem,))
    return description


def document() -> dict[str, Any]:
    """The OpenAPI 3.1 description of a server without keys."""
    request, answer, components = schemas()
    generate = _generate(request, answer)
    text = {"200": _content("As asked.", {"text/plain": {"schema": {"type": "string"}}})}
    models = {"200": _content("Manifest, versions, limits.", {"application/json": {}})}
    listed = models | _problems((InvalidRequestProblem,))
    ready = text | _problems((UnavailableProblem,))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Saddlepoint",
            "version": _VERSION,
            "description": "Latent seeds in, images out; the same bytes for the same seed.",
        },
        "paths": {
            "/v1/generate": {"post": generate | {"operationId": "generate"}},
            "/predict": {"post": generate | {"operationId": "predict"}},
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
            **_problems((*_MAKING, NotJsonProblem, SlowRequestProblem, TooLargeProblem)),
        },
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
    responses = {"200": _content("The image.", content), **_problems(_MAKING)}
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
