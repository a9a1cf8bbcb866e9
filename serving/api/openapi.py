"""Makes openapi.json from the routes of a server, and serves it.

Its examples ask for the model `digits`, which is conditional; the page `/docs` puts a model that is
served in its place.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from serving import VERSION
from serving.api.operations import (
    JSON,
    OPTIONAL_HEADERS,
    REQUEST_HEADERS,
    RESPONSE_HEADERS,
    Content,
    Operation,
    Schema,
)
from serving.api.pages import PATHS
from serving.api.router import Route
from serving.api.schemas import ProblemDocument, V2Error
from serving.errors import (
    InvalidRequestProblem,
    LongHeadProblem,
    LongPathProblem,
    NotJsonProblem,
    Problem,
    ScopeProblem,
    SlowRequestProblem,
    TooLargeProblem,
    UnauthorizedProblem,
    UnsupportedEncodingProblem,
)
from serving.http.auth import OPEN
from serving.http.messages import Request, Response
from serving.settings import Settings

# Reading a head can fail before the path is known: on every path, in /v2 as a problem document too.
_HEAD_PROBLEMS = (SlowRequestProblem, LongPathProblem, LongHeadProblem)
_BODY_PROBLEMS = (
    InvalidRequestProblem,
    NotJsonProblem,
    SlowRequestProblem,
    TooLargeProblem,
    UnsupportedEncodingProblem,
)
_PROBLEM_HEADERS = {401: ("WWW-Authenticate",), 429: ("Retry-After",)}
_DOCUMENT: Content = {"application/problem+json": ProblemDocument}


def with_openapi(routes: Sequence[Route], settings: Settings) -> list[Route]:
    """Adds the route GET /openapi.json, which describes all routes and itself."""

    async def openapi(request: Request) -> Response:
        return response

    operation = Operation(
        id="openapi",
        summary="This description, for programs.",
        tag="Pages",
        response="OpenAPI 3.1.",
        content={JSON: dict},
    )
    described = [*routes, Route("GET", "/openapi.json", openapi, operation)]
    response = Response.json(document(described, settings))
    return described


def document(routes: Iterable[Route], settings: Settings) -> Schema:
    """Describes the routes that have an operation, as a server with these settings runs them."""
    described = [(route, route.operation) for route in routes if route.operation is not None]
    schemas, components = _schemas(operation for _, operation in described)
    paths: Schema = {}
    tags: dict[str, bool] = {}
    for route, operation in described:
        closed = settings.api_keys is not None and route.path not in OPEN | PATHS
        entry = _Described(route, operation, schemas, closed=closed).entry()
        paths.setdefault(route.path, {})[route.method.lower()] = entry
        tags[operation.tag] = tags.get(operation.tag, False) or bool(operation.response)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Saddlepoint",
            "version": VERSION,
            "description": "Latent seeds in, images out; the same bytes for the same seed. "
            "Every GET answers HEAD too.",
        },
        **({"servers": [{"url": settings.root_path}]} if settings.root_path else {}),
        # What never succeeds comes last.
        "tags": [{"name": tag} for tag in sorted(tags, key=lambda tag: not tags[tag])],
        "paths": paths,
        "components": {"schemas": components, **_components(settings)},
    }


def _schemas(operations: Iterable[Operation]) -> tuple[dict[Any, Schema], Schema]:
    """The schema of each type that a body has, and of the structs that those refer to by name."""
    types: dict[Any, None] = {ProblemDocument: None, V2Error: None}
    for operation in operations:
        types |= dict.fromkeys([*operation.body.values(), *operation.content.values()])
    types.pop(bytes, None)  # msgspec would describe bytes in JSON, which are base64
    found, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    schemas = dict(zip(types, found, strict=True))
    return schemas | {bytes: {"type": "string", "format": "binary"}}, components


class _Described:
    """Writes one operation."""

    def __init__(
        self, route: Route, operation: Operation, schemas: dict[Any, Schema], *, closed: bool
    ) -> None:
        self._operation = operation
        self._schemas = schemas
        self._closed = closed
        self._is_v2 = route.path.startswith("/v2")
        self._is_head = route.method == "HEAD"

    def entry(self) -> Schema:
        operation = self._operation
        headers = (*operation.headers, *(("If-None-Match",) if operation.has_etag else ()))
        entry: Schema = {
            "tags": [operation.tag],
            "operationId": operation.id,
            "summary": operation.summary,
            "description": operation.description,
            "parameters": [
                *operation.parameters,
                *(
                    {"$ref": f"#/components/parameters/{name}"}
                    for name in (*headers, "X-Request-Id", "traceparent")
                ),
            ],
            "requestBody": self._body(),
            "responses": self._successes() | self._problems(),
            "security": [{"key": []}] if self._closed else None,
        }
        return {name: value for name, value in entry.items() if value}

    def _body(self) -> Schema | None:
        operation = self._operation
        if not operation.body:
            return None
        content = self._content(operation.body)
        if operation.examples:
            content[JSON]["examples"] = {
                name: {"summary": summary, "value": value}
                for name, (summary, value) in operation.examples.items()
            }
        return {"content": content} | ({"required": True} if operation.body_required else {})

    def _successes(self) -> Schema:
        operation = self._operation
        of_etag = ("ETag", "Cache-Control") if operation.has_etag else ()
        statuses = {}
        if operation.response:
            headers = (*operation.response_headers, *of_etag)
            statuses[str(int(operation.status))] = self._response(
                operation.response, operation.content, headers
            )
        if operation.has_etag:
            statuses["304"] = self._response("The client has it already.", {}, of_etag)
        return statuses

    def _problems(self) -> Schema:
        """The problems by status; several of one status share an entry."""
        operation = self._operation
        kinds: tuple[type[Problem], ...] = operation.problems
        kinds += _BODY_PROBLEMS if operation.body else ()
        kinds += (*_HEAD_PROBLEMS, *((UnauthorizedProblem, ScopeProblem) if self._closed else ()))
        titles: dict[int, list[str]] = {}
        for kind in kinds:
            if kind.title not in titles.setdefault(kind.status, []):
                titles[kind.status].append(kind.title)
        of_head = {kind.status for kind in _HEAD_PROBLEMS}
        statuses = {}
        for status, words in sorted(titles.items()):
            content = _DOCUMENT
            if self._is_v2:
                content = {JSON: V2Error, **(_DOCUMENT if status in of_head else {})}
            headers = _PROBLEM_HEADERS.get(status, ())
            statuses[str(status)] = self._response("; ".join(words), content, headers)
        return statuses

    def _response(self, description: str, content: Content, headers: Sequence[str]) -> Schema:
        names = ("X-Request-Id", *headers)
        entry: Schema = {
            "description": description,
            "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
        }
        if content and not self._is_head:
            entry["content"] = self._content(content)
        return entry

    def _content(self, content: Content) -> Schema:
        return {kind: {"schema": self._schemas[held]} for kind, held in content.items()}


def _components(settings: Settings) -> Schema:
    """Headers, which the operations refer to, and the API keys where the server has some."""
    parameters: Schema = {
        name: {"name": name, "in": "header", "description": text, "schema": dict(schema)}
        for name, (schema, text) in REQUEST_HEADERS.items()
    }
    parameters["X-Request-Timeout-Ms"]["schema"]["maximum"] = settings.request_timeout_ms
    headers = {
        name: {"description": text, "schema": schema, "required": name not in OPTIONAL_HEADERS}
        for name, (schema, text) in RESPONSE_HEADERS.items()
    }
    components: Schema = {"parameters": parameters, "headers": headers}
    if settings.api_keys is not None:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return components
