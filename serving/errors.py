"""The errors that clients and operators see: one hierarchy, each class with its code.

A `Problem` is an answer to a client: its class gives the HTTP status and the stable part of the
type URI, its text names field, value, what is allowed and the remedy (RFC 9457). A `ServingError`
ends a process: its class gives the exit code.
"""

import reprlib
from typing import Any, ClassVar

PROBLEM_URI = "urn:saddlepoint:problem:"
_MAX_DIGITS = 40


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 80
        self.maxlevel = 2

    def repr_int(self, value: int, level: int) -> str:
        """Shortens long integers; Python refuses to write numbers of thousands of digits."""
        few = abs(value) < 10**_MAX_DIGITS
        return str(value) if few else f"a number of {value.bit_length()} bits"


_short = _Short()


def quoted(value: Any) -> str:
    """Returns a value that a client sent as an error repeats it, never longer than a line.

    The value is written as Python writes it, bytes as text; dots stand for what is left out.
    """
    return _short.repr(value.decode("latin-1") if isinstance(value, bytes) else value)


class ClientGoneError(Exception):
    """The client closed the connection, so no response is needed."""


class ServingError(Exception):
    """The server can't start or go on."""

    exit_code: ClassVar[int] = 1


class SettingsError(ServingError):
    """A flag or variable can't be used."""

    exit_code: ClassVar[int] = 2


class DeviceError(ServingError):
    """The device that was asked for isn't there."""

    exit_code: ClassVar[int] = 3


class DeviceMemoryError(ServingError):
    """A version does not fit the device's memory now; it may later."""

    public: ClassVar[str] = (
        "there is not enough memory on the device for it now; the server's log says more"
    )
    """For clients: the text names paths of the server."""


class Problem(Exception):  # noqa: N818 - RFC 9457's own word
    """A defect of the server; it was logged with the request's id."""

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal"
    title: ClassVar[str] = "The server failed"
    remedy: ClassVar[str] = "Report it, with the answer's `X-Request-Id`."
    """In general; `detail` says it for the case at hand."""
    is_clients: bool = False
    """Whether the client brought it about, so that it doesn't count against the service."""

    def __init_subclass__(cls) -> None:
        """A status below 500 is the client's doing, unless the class says otherwise."""
        if "is_clients" not in cls.__dict__:
            cls.is_clients = cls.status < 500

    def __init__(self, detail: str, *, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        """detail: field, value, what is allowed, the remedy. headers: sent with the answer."""
        super().__init__(detail)
        self.detail = detail
        self.headers = headers


class InvalidRequestProblem(Problem):
    """A field or header is missing, contradictory or out of range."""

    status, slug, title = 400, "invalid-request", "The request can't be carried out as it stands"
    remedy = "Change what `detail` names; asking again as it is gives the same answer."


class NotJsonProblem(Problem):
    """The body is not JSON."""

    status, slug, title = 400, "not-json", "The body is not JSON"
    remedy = "Send a JSON object."


class NotHttpProblem(Problem):
    """What came over the connection is no HTTP request; the connection ends."""

    status, slug, title = 400, "not-http", "This is not an HTTP request"
    remedy = "Speak HTTP/1.1, without TLS unless a proxy ends it."


class ExpectationProblem(Problem):
    """`Expect` names something else than 100-continue; the connection ends."""

    status, slug, title = 417, "expectation-failed", "The server can't do what Expect asks"
    remedy = "Leave `Expect` out, or send `Expect: 100-continue`."


class UnauthorizedProblem(Problem):
    """The server has API keys, and the request brings no valid one."""

    status, slug, title = 401, "unauthorized", "An API key is needed"
    remedy = "Send `Authorization: Bearer KEY`; the operator makes keys with `serving.keys`."


class ScopeProblem(Problem):
    """The API key is valid, but was not made for this: making images, loading, or metrics."""

    status, slug, title = 403, "scope", "This API key may not do that"
    remedy = "Use a key that may; the operator makes one with `serving.keys add --scopes`."


class UnknownModelProblem(Problem):
    """No such model or version."""

    status, slug, title = 404, "unknown-model", "There is no such model or version"
    remedy = "`GET /v1/models` lists what there is."


class UnknownRouteProblem(Problem):
    """No such path."""

    status, slug, title = 404, "unknown-route", "There is nothing at this path"
    remedy = "`/openapi.json` describes every path."


class UnknownJobProblem(Problem):
    """No such job: it was deleted, has expired, or is another key's."""

    status, slug, title = 404, "unknown-job", "There is no such job"
    remedy = "`GET /v1/jobs` lists those there are."


class JobsOffProblem(Problem):
    """The server takes no jobs (`--jobs-folder`)."""

    status, slug, title = 403, "jobs-off", "This server takes no jobs"
    remedy = "Send several requests, or ask the operator, who can start it with `--jobs-folder`."


class JobGoingOnProblem(Problem):
    """The result of a job was asked for before its end, or of one that failed."""

    status, slug, title = 409, "job-not-done", "The job has no result"
    remedy = "`GET /v1/jobs/ID` says how far it is, and why it failed."


class MethodProblem(Problem):
    """The path exists, the method does not."""

    status, slug, title = 405, "wrong-method", "This path takes another method"
    remedy = "Use one of those that the header `Allow` names."


class SlowRequestProblem(Problem):
    """Head or body did not come in time (`--read-timeout-s`); the connection ends."""

    status, slug, title = 408, "read-timeout", "The request did not come in time"
    remedy = "Send it in one go, over a connection that is fast enough."


class NotAcceptableProblem(Problem):
    """None of the media types that Accept names can be had."""

    status, slug, title = 406, "not-acceptable", "The answer has no form that Accept allows"
    remedy = "Accept one of the types that `detail` lists, or leave `Accept` out."


class TooLargeProblem(Problem):
    """The body is larger than the server reads (`--max-body-bytes`); the connection ends."""

    status, slug, title = 413, "body-too-large", "The body is too large"
    remedy = "Split the request."


class RateLimitedProblem(Problem):
    """The API key asked for more images a second than it may; comes with `Retry-After`."""

    status, slug, title = 429, "rate-limited", "This API key asks for images too fast"
    remedy = "Ask again after `Retry-After`; the operator can raise the key's rate."


class LongPathProblem(Problem):
    """Path and query are longer than the server reads; the connection ends."""

    status, slug, title = 414, "path-too-long", "Path and query are too long"
    remedy = "Send many seeds by `POST /v1/generate`, which takes them in its body."


class LongHeadProblem(Problem):
    """The headers are longer than the server reads; the connection ends."""

    status, slug, title = 431, "head-too-long", "The headers are too long"
    remedy = "Send fewer or shorter headers; images need none but `Content-Type`."


class UnsupportedEncodingProblem(Problem):
    """The body is compressed in a way that the server doesn't read."""

    status, slug, title = 415, "unsupported-encoding", "The body's Content-Encoding is not known"
    remedy = "Send it as it is, or compressed with gzip or deflate."


class ModelControlProblem(Problem):
    """Clients may not load or unload models (`--model-control`)."""

    status, slug, title = 403, "model-control-off", "Models are not for clients to load or unload"
    remedy = "Ask the operator, who can start the server with `--model-control clients`."


class ForeignPageProblem(Problem):
    """A web page of another origin asked for something that changes what is served."""

    status, slug, title = 403, "foreign-page", "Web pages of other origins may not change anything"
    remedy = "Ask from the server's own pages; the operator can name others (`--cors-origins`)."


class OverloadedProblem(Problem):
    """Too many images wait (`--max-waiting-rows`), whoever asked; comes with `Retry-After`."""

    status, slug, title = 429, "overloaded", "Too many images are waiting"
    remedy = "Ask again after `Retry-After`; the operator can add workers."
    is_clients = False


class UnsupportedProblem(Problem):
    """A part of the v2 protocol that this server doesn't have."""

    status, slug, title = 501, "unsupported", "The server doesn't do this"
    remedy = "Use what `GET /v2` lists under `extensions`."
    is_clients = True


class TransferCodingProblem(Problem):
    """The body is coded for the connection in another way than chunked; the connection ends."""

    status, slug, title = 501, "transfer-coding", "The body's Transfer-Encoding is not known"
    remedy = "Send it with `Content-Length`, or in chunks."
    is_clients = True


class VersionRefusedProblem(Problem):
    """The version that the request names by number can't be used; CURRENT is another one."""

    status, slug, title = 409, "version-refused", "This version of the model can't be used"
    remedy = "Leave `version` out, or name another; the operator can mend or remove this one."


class UnavailableProblem(Problem):
    """No worker is ready, CURRENT is refused, or a worker died with the request."""

    status, slug, title = 503, "unavailable", "The model is not available at the moment"
    remedy = "Ask again in a moment, which is safe: making images has no side effect."

    def __init__(
        self,
        detail: str,
        *,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        by_version: bool = False,
    ) -> None:
        """by_version: the version's files are at fault, not the server or its storage."""
        super().__init__(detail, headers=headers)
        self.by_version = by_version


class DeadlineProblem(Problem):
    """Not answered within `X-Request-Timeout-Ms` or `--request-timeout-ms`."""

    status, slug, title = 504, "deadline-exceeded", "The images were not made in time"
    remedy = "Ask for fewer, allow more time, or ask again later."
    is_clients = False

    def __init__(self, detail: str, *, is_clients: bool = False) -> None:
        """is_clients: the client allowed less time than the operator promises."""
        super().__init__(detail)
        self.is_clients = is_clients


def problems() -> list[type[Problem]]:
    """Returns every kind of problem, ordered by status, then slug."""
    kinds: list[type[Problem]] = [Problem]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return sorted(kinds, key=lambda kind: (kind.status, kind.slug))
