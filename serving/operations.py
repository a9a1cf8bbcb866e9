"""What the parts of openapi.json are made of: operations, answers, parameters, headers."""

from collections.abc import Callable, Sequence
from typing import Any

from serving.errors import (
    DeadlineProblem,
    InvalidRequestProblem,
    LongHeadProblem,
    LongPathProblem,
    NotJsonProblem,
    OverloadedProblem,
    Problem,
    RateLimitedProblem,
    SlowRequestProblem,
    TooLargeProblem,
    UnavailableProblem,
    UnknownModelProblem,
    UnsupportedEncodingProblem,
)
from serving.openapi_answers import ProblemDocument, V2Error
from serving.terms import PRIORITIES

Schema = dict[str, Any]
Kinds = tuple[type[Problem], ...]

MAKING: Kinds = (
    InvalidRequestProblem,
    UnknownModelProblem,
    RateLimitedProblem,
    OverloadedProblem,
    UnavailableProblem,
    DeadlineProblem,
)
"""How making images can fail."""
BODY: Kinds = (
    InvalidRequestProblem,
    NotJsonProblem,
    SlowRequestProblem,
    TooLargeProblem,
    UnsupportedEncodingProblem,
)
"""How reading a body can fail."""
_HEAD: Kinds = (SlowRequestProblem, LongPathProblem, LongHeadProblem)
"""How reading a head can fail, on whatever path: the path may not be known yet."""

_STRING: Schema = {"type": "string"}
_SENT: dict[str, tuple[Schema, str]] = {
    "X-Request-Timeout-Ms": (
        {"type": "integer", "minimum": 1},
        "answer within so many milliseconds, or 504; --request-timeout-ms if absent",
    ),
    "X-Priority": (
        {"enum": [name.decode() for name in PRIORITIES]},
        "bulk: other requests go first; interactive if absent, but for walks",
    ),
    "If-None-Match": (_STRING, "ETags that the client holds: 304 where one still fits"),
    "Inference-Header-Content-Length": (
        {"type": "integer", "minimum": 0},
        "how many bytes of the body are JSON, where tensors follow as bytes",
    ),
    "X-Request-Id": (
        _STRING,
        "an id of the client's own, 1 .. 128 printable characters: comes back, stands in the log",
    ),
    "traceparent": (_STRING, "W3C Trace Context: the trace that the request is part of"),
}
_ANSWERED: dict[str, tuple[Schema, str]] = {
    "X-Request-Id": (_STRING, "the request's id, the client's own if it sent one"),
    "X-Model": (_STRING, "the model that made the images"),
    "X-Model-Version": ({"type": "integer", "minimum": 1}, "its version"),
    "X-Model-Digest": (_STRING, "SHA-256 of its bundle"),
    "Server-Timing": (_STRING, "queue, infer and encode in milliseconds, or a hit of the cache"),
    "ETag": (_STRING, "a strong validator: the same tag, the same bytes"),
    "Cache-Control": (_STRING, "for ever where the URL names a version, else to be validated"),
    "Retry-After": ({"type": "integer", "minimum": 1}, "seconds to wait before asking again"),
    "WWW-Authenticate": (_STRING, "Bearer, and what is wrong with the key that was sent"),
    "Inference-Header-Content-Length": (
        {"type": "integer", "minimum": 0},
        "how many bytes of the answer are JSON; absent where all are",
    ),
}
_OPTIONAL = frozenset({"Inference-Header-Content-Length", "Server-Timing"})
"""Of answers that are all JSON the one says nothing, of a HEAD that made nothing the other."""
_OF_PROBLEMS = {401: ("WWW-Authenticate",), 429: ("Retry-After",)}
TERMS = ("X-Request-Timeout-Ms", "X-Priority")
"""Headers of requests that have images made."""
OF_A_MODEL = ("X-Model", "X-Model-Version", "X-Model-Digest")
"""Headers of answers that hold images."""


def header_components() -> Schema:
    """Every header, for the document's components."""
    return {
        "parameters": {
            name: {"name": name, "in": "header", "description": text, "schema": schema}
            for name, (schema, text) in _SENT.items()
        },
        "headers": {
            name: {"description": text, "schema": schema, "required": name not in _OPTIONAL}
            for name, (schema, text) in _ANSWERED.items()
        },
    }


def problems(kinds: Kinds) -> Schema:
    """Answers that are problem documents, by status."""
    titles: dict[int, list[str]] = {}
    for kind in kinds:
        if kind.title not in titles.setdefault(kind.status, []):
            titles[kind.status].append(kind.title)
    body = {"application/problem+json": {"schema": schema_of(ProblemDocument)}}
    return {
        str(status): answer("; ".join(words), body, _OF_PROBLEMS.get(status, ()))
        for status, words in sorted(titles.items())
    }


def errors(kinds: Kinds) -> Schema:
    """Answers that are problems as the v2 protocol tells them, by status."""
    told, of_a_head = problems(kinds), problems(_HEAD)
    for status, entry in told.items():
        documents = entry["content"] if status in of_a_head else {}
        entry["content"] = json_of(schema_of(V2Error)) | documents
    return told


def bodiless(kinds: Kinds) -> Schema:
    """Answers that are problems to a HEAD, by status."""
    return {
        status: {name: part for name, part in entry.items() if name != "content"}
        for status, entry in problems(kinds).items()
    }


def operation(
    name: str,
    summary: str,
    answers: Schema,
    kinds: Kinds = (),
    *,
    parameters: Sequence[Schema] = (),
    headers: Sequence[str] = (),
    body: Schema | None = None,
    told: Callable[[Kinds], Schema] = problems,
) -> Schema:
    """An operation, with what every one has: headers that trace it, problems of its head.

    Args:
        name: the operation's id.
        summary: what it does, in a line.
        answers: by status, where all goes well.
        kinds: what else it can answer.
        parameters: in path and query.
        headers: names of those it heeds.
        body: the request's.
        told: how problems are told.
    """
    sent = [
        {"$ref": f"#/components/parameters/{header}"}
        for header in (*headers, "X-Request-Id", "traceparent")
    ]
    return {
        "operationId": name,
        "summary": summary,
        "parameters": [*parameters, *sent],
        **({"requestBody": body} if body else {}),
        "responses": answers | told((*kinds, *_HEAD)),
    }


def answer(description: str, content: Schema | None = None, headers: Sequence[str] = ()) -> Schema:
    """An answer with a body and headers, the request's id among them."""
    refs = {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-Id", *headers)}
    parts: Schema = {"description": description, "headers": refs}
    return parts | ({"content": content} if content else {})


def schema_of(kind: type) -> Schema:
    """A reference to a type's schema."""
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


def json_of(schema: Schema, **examples: tuple[str, Any]) -> Schema:
    """A body of JSON. examples: a summary and a value each."""
    told = {name: {"summary": text, "value": value} for name, (text, value) in examples.items()}
    return {"application/json": {"schema": schema} | ({"examples": told} if told else {})}


def text(media_type: str = "text/plain") -> Schema:
    """A body of text."""
    return {media_type: {"schema": _STRING}}


def binary() -> Schema:
    """The schema of a body of bytes, in its place."""
    return {"schema": {"type": "string", "format": "binary"}}


def path(name: str, example: str, description: str = "", pattern: str | None = None) -> Schema:
    """A parameter in the path."""
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": _STRING | ({"pattern": pattern} if pattern else {}),
        "example": example,
    }


def query(name: str, schema: Schema, description: str, example: float) -> Schema:
    """A parameter in the query."""
    return {
        "name": name,
        "in": "query",
        "description": description,
        "schema": schema,
        "example": example,
    }
