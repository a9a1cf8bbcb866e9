"""Everything that a client or an operator can be told: one hierarchy, each with its code.

A `Problem` is an answer to a client: its class gives the HTTP status and the stable part of the
type URI, its text names field, value, what is allowed and the remedy (RFC 9457). A `ServingError`
ends a process: its class gives the exit code.
"""

from typing import ClassVar

PROBLEM_URI = "urn:saddlepoint:problem:"


class ServingError(Exception):
    """The server can't start or go on."""

    exit_code: ClassVar[int] = 1


class SettingsError(ServingError):
    """A flag or variable can't be used."""

    exit_code: ClassVar[int] = 2


class DeviceError(ServingError):
    """The device that was asked for isn't there."""

    exit_code: ClassVar[int] = 3


class Problem(Exception):  # noqa: N818 - RFC 9457's own word
    """A defect of the server; it was logged with the request's id."""

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal"
    title: ClassVar[str] = "The server failed"
    remedy: ClassVar[str] = "Report it, with the answer's `X-Request-Id`."
    """In general; `detail` says it for the case at hand."""

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


class UnauthorizedProblem(Problem):
    """The server has API keys, and the request brings none that is in force."""

    status, slug, title = 401, "unauthorized", "An API key is needed"
    remedy = "Send `Authorization: Bearer KEY`; the operator makes keys with `serving.keys`."


class UnknownModelProblem(Problem):
    """No such model or version."""

    status, slug, title = 404, "unknown-model", "There is no such model or version"
    remedy = "`GET /v1/models` lists what there is."


class UnknownRouteProblem(Problem):
    """No such path."""

    status, slug, title = 404, "unknown-route", "There is nothing at this path"
    remedy = "`/openapi.json` describes every path."


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


class OverloadedProblem(Problem):
    """Too many images wait (`--max-waiting-rows`), whoever asked; comes with `Retry-After`."""

    status, slug, title = 429, "overloaded", "Too many images are waiting"
    remedy = "Ask again after `Retry-After`; the operator can add workers."


class UnsupportedProblem(Problem):
    """A part of the v2 protocol that this server doesn't have."""

    status, slug, title = 501, "unsupported", "The server doesn't do this"
    remedy = "Use what `GET /v2` lists under `extensions`."


class UnavailableProblem(Problem):
    """No worker is ready, the version is refused, or a worker died with the request."""

    status, slug, title = 503, "unavailable", "The model is not available at the moment"
    remedy = "Ask again in a moment, which is safe: making images has no side effect."


class DeadlineProblem(Problem):
    """Not answered within `X-Request-Timeout-Ms` or `--request-timeout-ms`."""

    status, slug, title = 504, "deadline-exceeded", "The images were not made in time"
    remedy = "Ask for fewer, allow more time, or ask again later."


def problems() -> list[type[Problem]]:
    """Every kind of problem, by status, then slug."""
    kinds: list[type[Problem]] = [Problem]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return sorted(kinds, key=lambda kind: (kind.status, kind.slug))
