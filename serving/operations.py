"""What the parts of openapi.json are made of: operations, answers, parameters."""

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
    UnavailableProblem,
    UnknownModelProblem,
    UnsupportedEncodingProblem,
)

MAKING: tuple[type[Problem], ...] = (
    InvalidRequestProblem,
    UnknownModelProblem,
    RateLimitedProblem,
    OverloadedProblem,
    UnavailableProblem,
    DeadlineProblem,
)
READING = (
    *MAKING,
    NotJsonProblem,
    SlowRequestProblem,
    TooLargeProblem,
    UnsupportedEncodingProblem,
)


def get(
    operation: str,
    summary: str,
    responses: dict[str, Any],
    parameters: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """A GET operation."""
    return {
        "operationId": operation,
        "summary": summary,
        "parameters": parameters or [],
        "responses": responses,
    }


def problems(kinds: tuple[type[Problem], ...]) -> dict[str, Any]:
    """Answers that are problem documents, by status."""
    titles: dict[int, list[str]] = {}
    for problem in kinds:
        titles.setdefault(problem.status, []).append(problem.title)
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {
        str(status): content("; ".join(words), {"application/problem+json": schema})
        for status, words in sorted(titles.items())
    }


def content(description: str, content: dict[str, Any]) -> dict[str, Any]:
    """An answer with a body."""
    return {"description": description, "content": content}


def binary() -> dict[str, Any]:
    """A body of bytes."""
    return {"schema": {"type": "string", "format": "binary"}}


def path(name: str, description: str = "", pattern: str | None = None) -> dict[str, Any]:
    """A parameter in the path."""
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": {"type": "string"} | ({"pattern": pattern} if pattern else {}),
    }


def query(name: str, kind: str, description: str) -> dict[str, Any]:
    """A parameter in the query."""
    return {"name": name, "in": "query", "description": description, "schema": {"type": kind}}


def errors(kinds: tuple[type[Problem], ...]) -> dict[str, Any]:
    """Answers that are problems as the v2 protocol tells them, by status."""
    schema = {
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"type": "string"}},
    }
    return {
        status: {**entry, "content": {"application/json": {"schema": schema}}}
        for status, entry in problems(kinds).items()
    }
