"""How a client wants to be served: what its headers say, checked."""

from collections.abc import Callable
from dataclasses import dataclass

from serving.errors import DeadlineProblem, InvalidRequestProblem
from serving.settings import Settings
from serving.wording import shown

TIMEOUT = b"x-request-timeout-ms"
PRIORITY = b"x-priority"
PRIORITIES = (b"interactive", b"bulk")


@dataclass(frozen=True, slots=True)
class Terms:
    """Answered within timeout_ms; bulk where other requests go first."""

    timeout_ms: int
    bulk: bool


def read_terms(
    header: Callable[[bytes], bytes | None], settings: Settings, *, bulk: bool = False
) -> Terms:
    """Terms from a request's headers.

    Args:
        header: the value of a header by its lower-case name.
        settings: the longest time-out that a client may ask for, and the default.
        bulk: what holds where no header says.

    Raises:
        InvalidRequestProblem: a header's value is not allowed.
    """
    most = settings.request_timeout_ms
    timeout_ms = most
    text = header(TIMEOUT)
    if text is not None:
        if not text.isdigit() or len(text) > 12 or not 1 <= int(text) <= most:
            raise InvalidRequestProblem(
                f"X-Request-Timeout-Ms is {shown(text)}, allowed are 1 .. {most}"
            )
        timeout_ms = int(text)
    priority = header(PRIORITY)
    if priority is not None:
        if priority not in PRIORITIES:
            raise InvalidRequestProblem(
                f"X-Priority is {shown(priority)}, allowed are interactive and bulk"
            )
        bulk = priority == b"bulk"
    return Terms(timeout_ms, bulk)


def deadline_problem(timeout_ms: int) -> DeadlineProblem:
    """What a client hears at its deadline."""
    return DeadlineProblem(
        f"the images were not made within {timeout_ms} ms; ask for fewer, or again later"
    )
