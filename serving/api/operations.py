"""Describes what a route takes and responds with, for openapi.json.

Each route declares its `Operation` beside its handler; `serving.api.openapi` makes the document.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from serving.errors import (
    DeadlineProblem,
    InvalidRequestProblem,
    OverloadedProblem,
    Problem,
    RateLimitedProblem,
    UnavailableProblem,
    UnknownModelProblem,
)
from serving.requests.deadlines import PRIORITIES

Schema = dict[str, Any]
Content = dict[str, Any]
"""Media types, each with the type of what it holds: a struct for JSON, str for text, bytes."""

JSON = "application/json"
OCTETS = "application/octet-stream"

_STRING: Schema = {"type": "string"}
_POSITIVE: Schema = {"type": "integer", "minimum": 1}
_LENGTH = "Inference-Header-Content-Length"
REQUEST_HEADERS: dict[str, tuple[Schema, str]] = {
    "X-Request-Timeout-Ms": (
        _POSITIVE,
        "deadline in milliseconds, after which the response is 504; --request-timeout-ms if absent",
    ),
    "X-Priority": (
        {"enum": [name.decode() for name in PRIORITIES]},
        "bulk: other requests go first; interactive if absent, except for walks",
    ),
    "If-None-Match": (_STRING, "ETags that the client has: 304 if one of them is current"),
    _LENGTH: (
        {"type": "integer", "minimum": 0},
        "size of the JSON in the body, if tensors follow it as bytes",
    ),
    "X-Request-Id": (
        _STRING,
        "an id of the client's own, 1 .. 128 printable characters; it is sent back and logged",
    ),
    "traceparent": (_STRING, "W3C Trace Context: the trace that the request belongs to"),
}
RESPONSE_HEADERS: dict[str, tuple[Schema, str]] = {
    "X-Request-Id": (_STRING, "the request's id, the client's own if it sent one"),
    "X-Model": (_STRING, "the model that made the images"),
    "X-Model-Version": (_POSITIVE, "its version"),
    "X-Model-Digest": (_STRING, "SHA-256 of its bundle"),
    "X-Note": (_STRING, "what must not be forgotten of the images; it is in every file, too"),
    "X-Seeds": (_STRING, "with count: the first and the last seed that the server drew, as 7-10"),
    "Server-Timing": (_STRING, "queue, infer and encode in milliseconds, or a hit of the cache"),
    "ETag": (_STRING, "a strong validator: the same tag means the same bytes"),
    "Cache-Control": (_STRING, "valid for ever if the URL names a version, else to be revalidated"),
    "Location": (_STRING, "where the job is, relative to where it was posted"),
    "Content-Disposition": (_STRING, "a name for the file"),
    "Retry-After": (_POSITIVE, "seconds to wait before the next attempt"),
    "WWW-Authenticate": (_STRING, "Bearer, and why the key was refused"),
    _LENGTH: (
        {"type": "integer", "minimum": 0},
        "size of the JSON in the body; absent if all of it is JSON",
    ),
}
OPTIONAL_HEADERS = frozenset({_LENGTH, "Server-Timing", "X-Seeds"})
"""The first is absent if all is JSON, the second if HEAD made no image, the third without count."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation of the document, without what follows from its path and method."""

    id: str
    summary: str
    tag: str
    description: str = ""
    parameters: tuple[Schema, ...] = ()
    """Those in path and query."""
    headers: tuple[str, ...] = ()
    """The request's, from REQUEST_HEADERS; every request may have X-Request-Id and traceparent."""
    body: Content = field(default_factory=dict)
    """The request's, empty where it has none; implies the problems of reading one."""
    body_required: bool = True
    examples: Mapping[str, tuple[str, Any]] = field(default_factory=dict)
    """Of a JSON body: a summary and a value each."""
    response: str = ""
    """Describes the status of success; empty where the route never has it."""
    status: int = 200
    """Of success."""
    content: Content = field(default_factory=dict)
    """The response's body."""
    response_headers: tuple[str, ...] = ()
    """From RESPONSE_HEADERS; every response has X-Request-Id."""
    has_etag: bool = False
    """Implies ETag, Cache-Control, If-None-Match and status 304."""
    problems: tuple[type[Problem], ...] = ()
    """Those of the handler; the ones of reading a request are added."""


MODEL_PROBLEMS = (UnknownModelProblem, UnavailableProblem)
"""How a route fails that names a model."""
MAKING: dict[str, Any] = {
    "headers": ("X-Request-Timeout-Ms", "X-Priority"),
    "response_headers": (
        *("X-Model", "X-Model-Version", "X-Model-Digest", "Server-Timing", "X-Seeds"),
    ),
    "problems": (
        InvalidRequestProblem,
        UnknownModelProblem,
        RateLimitedProblem,
        OverloadedProblem,
        UnavailableProblem,
        DeadlineProblem,
    ),
}
"""What the operations that make images have in common."""


def in_path(name: str, example: str, description: str = "", pattern: str | None = None) -> Schema:
    """Describes a parameter in the path."""
    schema = _STRING | ({"pattern": pattern} if pattern else {})
    return _parameter("path", name, schema, description, example) | {"required": True}


def in_query(name: str, schema: Schema, description: str, example: float | None = None) -> Schema:
    """Describes an optional parameter in the query; example: of every model, or none."""
    return _parameter("query", name, schema, description, example)


def _parameter(where: str, name: str, schema: Schema, description: str, example: Any) -> Schema:
    parameter = {"name": name, "in": where, "description": description, "schema": schema}
    return parameter | ({} if example is None else {"example": example})


MODEL = in_path("model", "digits", "its name")
