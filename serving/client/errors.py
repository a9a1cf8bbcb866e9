"""What a client hears when it gets no images: an exception for each problem of the server.

The catalogue is the server's own (`serving.errors`); a test compares them.
"""

from typing import Any, ClassVar

import msgspec

from serving.errors import PROBLEM_URI


class ClientError(Exception):
    """No images: what the server said, or why it could not be asked."""

    slug: ClassVar[str] = ""
    known: ClassVar[dict[str, type["ClientError"]]] = {}

    def __init__(
        self,
        detail: str,
        *,
        status: int | None = None,
        title: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        """detail: what is wrong, and the remedy. status: of HTTP, None where nobody answered."""
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.title = title
        self.retry_after_s = retry_after_s

    @property
    def type(self) -> str:
        """The type URI of the problem document."""
        return PROBLEM_URI + self.slug

    def __init_subclass__(cls, slug: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.slug = slug
        if slug:
            ClientError.known[slug] = cls


class ServerFailedError(ClientError, slug="internal"):
    """The server has a defect."""


class InvalidRequestError(ClientError, slug="invalid-request"):
    """A field is missing, contradictory or out of range."""


class NotJsonError(ClientError, slug="not-json"):
    """The body was no JSON."""


class NotHttpError(ClientError, slug="not-http"):
    """What was sent was no HTTP."""


class UnauthorizedError(ClientError, slug="unauthorized"):
    """The server needs an API key, and the one given is not in force."""


class SlowRequestError(ClientError, slug="read-timeout"):
    """The request did not come in time."""


class RateLimitedError(ClientError, slug="rate-limited"):
    """The API key asked for too many images a second, for all attempts."""


class UnknownModelError(ClientError, slug="unknown-model"):
    """There is no such model or version."""


class UnknownRouteError(ClientError, slug="unknown-route"):
    """There is nothing at this path; is it this server?"""


class WrongMethodError(ClientError, slug="wrong-method"):
    """The path takes another method."""


class NotAcceptableError(ClientError, slug="not-acceptable"):
    """The answer has no form that was accepted."""


class TooLargeError(ClientError, slug="body-too-large"):
    """The request is larger than the server reads."""


class LongPathError(ClientError, slug="path-too-long"):
    """Path and query are longer than the server reads."""


class LongHeadError(ClientError, slug="head-too-long"):
    """The headers are longer than the server reads."""


class UnsupportedEncodingError(ClientError, slug="unsupported-encoding"):
    """The body's Content-Encoding is not known."""


class ModelControlError(ClientError, slug="model-control-off"):
    """Clients may not load and unload models."""


class OverloadedError(ClientError, slug="overloaded"):
    """Too many images wait, and went on doing so for all attempts."""


class UnsupportedError(ClientError, slug="unsupported"):
    """The server doesn't do this."""


class UnavailableError(ClientError, slug="unavailable"):
    """No worker was ready, for all attempts."""


class DeadlineError(ClientError, slug="deadline-exceeded"):
    """The images were not made in time."""


class UnreachableError(ClientError):
    """Nobody answered."""


class ForeignAnswerError(ClientError):
    """The answer is none of this server's: a proxy's, or another program's."""


class _Document(msgspec.Struct):
    type: str
    title: str
    status: int
    detail: str


def error_of(status: int, body: bytes, retry_after_s: float | None) -> ClientError:
    """The exception for an answer that isn't 2xx."""
    try:
        document = msgspec.json.decode(body, type=_Document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        start = body[:200].decode("utf-8", "replace")
        return ForeignAnswerError(
            f"status {status}, and no problem document; is this the server, or a proxy before it? "
            f"It begins: {start!r}",
            status=status,
            retry_after_s=retry_after_s,
        )
    kind = ClientError.known.get(document.type.removeprefix(PROBLEM_URI), ClientError)
    return kind(document.detail, status=status, title=document.title, retry_after_s=retry_after_s)
