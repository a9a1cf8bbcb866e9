"""The exceptions that the client raises: one for each problem of the server, and two of its own.

A test compares them with the server's problems (`serving.errors`).
"""

from typing import Any, ClassVar

import msgspec

from serving.errors import PROBLEM_URI


class ClientError(Exception):
    """A call failed: the base of all exceptions of the client."""

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
        """detail: what is wrong, and the remedy. status: of HTTP, None where no response came."""
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.title = title
        self.retry_after_s = retry_after_s

    @property
    def type(self) -> str:
        """The URI that identifies the kind of problem."""
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
    """The body was not JSON."""


class NotHttpError(ClientError, slug="not-http"):
    """What was sent was not an HTTP request."""


class UnauthorizedError(ClientError, slug="unauthorized"):
    """The server needs an API key, and the request had none that is valid."""


class ScopeError(ClientError, slug="scope"):
    """The API key is valid, but was not made for this."""


class SlowRequestError(ClientError, slug="read-timeout"):
    """The server did not receive the request in time."""


class RateLimitedError(ClientError, slug="rate-limited"):
    """The API key asked for too many images a second, at each attempt."""


class UnknownModelError(ClientError, slug="unknown-model"):
    """There is no such model or version."""


class UnknownRouteError(ClientError, slug="unknown-route"):
    """The server has no such path; the URL may be that of another server."""


class UnknownJobError(ClientError, slug="unknown-job"):
    """There is no such job."""


class JobsOffError(ClientError, slug="jobs-off"):
    """The server takes no jobs."""


class JobGoingOnError(ClientError, slug="job-not-done"):
    """The job has no result: it goes on, or has failed."""


class WrongMethodError(ClientError, slug="wrong-method"):
    """The path takes another method."""


class NotAcceptableError(ClientError, slug="not-acceptable"):
    """The server can't respond in a media type that was accepted."""


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


class ForeignPageError(ClientError, slug="foreign-page"):
    """The request looked like one of a web page of another origin."""


class ExpectationFailedError(ClientError, slug="expectation-failed"):
    """The server can't meet what the request's Expect header asks for."""


class TransferCodingError(ClientError, slug="transfer-coding"):
    """The request's Transfer-Encoding is not one that the server reads."""


class OverloadedError(ClientError, slug="overloaded"):
    """Too many images were waiting, at each attempt."""


class UnsupportedError(ClientError, slug="unsupported"):
    """The server doesn't support this."""


class VersionRefusedError(ClientError, slug="version-refused"):
    """409: the version that was named can't be used."""


class UnavailableError(ClientError, slug="unavailable"):
    """No worker was ready, at each attempt."""


class DeadlineError(ClientError, slug="deadline-exceeded"):
    """The images were not made in time."""


class UnreachableError(ClientError):
    """No response came, or not in time."""


class ForeignAnswerError(ClientError):
    """The response is not one of this server: a proxy's, or another program's."""


class _Document(msgspec.Struct):
    type: str
    title: str
    status: int
    detail: str


def error_of(status: int, body: bytes, retry_after_s: float | None) -> ClientError:
    """Makes the exception for a response that isn't 2xx."""
    try:
        document = msgspec.json.decode(body, type=_Document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        start = body[:200].decode("utf-8", "replace")
        return ForeignAnswerError(
            f"the response has status {status} and is not a problem document; check that the URL "
            f"is the server's, and what proxies do on the way. It begins: {start!r}",
            status=status,
            retry_after_s=retry_after_s,
        )
    kind = ClientError.known.get(document.type.removeprefix(PROBLEM_URI), ClientError)
    return kind(document.detail, status=status, title=document.title, retry_after_s=retry_after_s)
