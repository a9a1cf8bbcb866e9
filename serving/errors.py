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
    """An answer that tells a client what is wrong."""

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal"
    title: ClassVar[str] = "The server failed"

    def __init__(self, detail: str, *, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        """detail: field, value, what is allowed, the remedy. headers: sent with the answer."""
        super().__init__(detail)
        self.detail = detail
        self.headers = headers


class InvalidRequestProblem(Problem):
    """A field is missing, contradictory or out of range."""

    status, slug, title = 400, "invalid-request", "The request can't be carried out as it stands"


class NotJsonProblem(Problem):
    """The body is not JSON."""

    status, slug, title = 400, "not-json", "The body is not JSON"


class UnknownModelProblem(Problem):
    """No such model or version."""

    status, slug, title = 404, "unknown-model", "There is no such model or version"


class UnknownRouteProblem(Problem):
    """No such path."""

    status, slug, title = 404, "unknown-route", "There is nothing at this path"


class MethodProblem(Problem):
    """The path exists, the method does not."""

    status, slug, title = 405, "wrong-method", "This path takes another method"


class NotAcceptableProblem(Problem):
    """None of the media types that Accept names can be had."""

    status, slug, title = 406, "not-acceptable", "The answer has no form that Accept allows"


class TooLargeProblem(Problem):
    """The body is larger than the server reads."""

    status, slug, title = 413, "body-too-large", "The body is too large"


class UnsupportedEncodingProblem(Problem):
    """The body is compressed in a way that the server doesn't read."""

    status, slug, title = 415, "unsupported-encoding", "The body's Content-Encoding is not known"


class ModelControlProblem(Problem):
    """Clients may not load or unload models (`--model-control`)."""

    status, slug, title = 403, "model-control-off", "Models are not for clients to load or unload"


class OverloadedProblem(Problem):
    """Too many rows wait; comes with Retry-After."""

    status, slug, title = 429, "overloaded", "Too many images are waiting"


class UnsupportedProblem(Problem):
    """A part of the v2 protocol that this server doesn't have."""

    status, slug, title = 501, "unsupported", "The server doesn't do this"


class UnavailableProblem(Problem):
    """No worker is ready, or it died with the request; asking again is safe."""

    status, slug, title = 503, "unavailable", "The model is not available at the moment"


class DeadlineProblem(Problem):
    """Not answered in time."""

    status, slug, title = 504, "deadline-exceeded", "The images were not made in time"
