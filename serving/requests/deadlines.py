"""Deadline and priority of a request, as its headers ask for them."""

from collections.abc import Callable
from dataclasses import dataclass

from serving.errors import DeadlineProblem, InvalidRequestProblem, quoted
from serving.settings import Settings

TIMEOUT = b"x-request-timeout-ms"
PRIORITY = b"x-priority"
PRIORITIES = (b"interactive", b"bulk")


@dataclass(frozen=True, slots=True)
class Scheduling:
    """How long a request may take, and whether other requests go first (bulk)."""

    timeout_ms: int
    bulk: bool
    is_short: bool = False
    """The client allows less time than the operator promises."""

    def problem(self) -> DeadlineProblem:
        """The problem of a request whose deadline has passed."""
        return DeadlineProblem(
            f"the images were not made within {self.timeout_ms} ms; ask for fewer, or again later",
            is_clients=self.is_short,
        )


def read_scheduling(
    header: Callable[[bytes], bytes | None], settings: Settings, *, bulk: bool = False
) -> Scheduling:
    """Reads X-Request-Timeout-Ms and X-Priority.

    Args:
        header: gives the value of a header by its lower-case name.
        settings: the longest time-out that a client may ask for, which is also the default.
        bulk: the priority of requests without X-Priority.

    Raises:
        InvalidRequestProblem: a header's value is not allowed.
    """
    most = settings.request_timeout_ms
    timeout_ms = most
    text = header(TIMEOUT)
    if text is not None:
        if not text.isdigit() or len(text) > 12 or not 1 <= int(text) <= most:
            raise InvalidRequestProblem(
                f"X-Request-Timeout-Ms is {quoted(text)}, allowed are 1 .. {most}"
            )
        timeout_ms = int(text)
    priority = header(PRIORITY)
    if priority is not None:
        if priority not in PRIORITIES:
            raise InvalidRequestProblem(
                f"X-Priority is {quoted(priority)}, allowed are interactive and bulk"
            )
        bulk = priority == b"bulk"
    is_short = text is not None and timeout_ms < settings.promised_ms
    return Scheduling(timeout_ms, bulk, is_short)
