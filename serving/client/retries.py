"""Decides whether to send a request again, and after which pause; does no input or output.

Making images has no side effect, so a request may be sent twice. It is sent again where no response
came, where the server is full (429) and where it has no worker (502, 503): after the pause that
Retry-After names, else with exponential back-off and full jitter (Brooker, "Exponential Backoff And
Jitter", 2015). It is not sent again after 504, when its time is over.
"""

import datetime
import email.utils
from dataclasses import dataclass

RETRIED = frozenset({429, 502, 503})


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How often a request is sent again, and how long the client waits before it does."""

    attempts: int = 5
    """How often a request is sent at most; with 1 it is never sent again."""
    first_s: float = 0.1
    """Upper bound of the first pause; it doubles each time."""
    most_s: float = 5.0
    """Upper bound of any pause, unless Retry-After names one."""

    def pause(
        self,
        attempt: int,
        status: int | None,
        retry_after_s: float | None,
        *,
        left_s: float,
        draw: float,
    ) -> float | None:
        """Returns the seconds to wait before the next attempt, or None to give up.

        Args:
            attempt: how often the request was sent so far.
            status: the response's, None where none came.
            retry_after_s: what the response says, if it does.
            left_s: time until the deadline of all attempts; the pause must be shorter.
            draw: uniform in [0, 1).
        """
        if attempt >= self.attempts or (status is not None and status not in RETRIED):
            return None
        if retry_after_s is not None:
            pause_s = retry_after_s
        else:
            pause_s = draw * min(self.most_s, self.first_s * 2 ** min(attempt - 1, 30))
        return pause_s if pause_s < left_s else None


def retry_after(value: str | None, now: datetime.datetime) -> float | None:
    """Converts Retry-After, a number or a date (RFC 9110, 10.2.3), to seconds; None if neither."""
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value)
    try:
        then = email.utils.parsedate_to_datetime(value)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=datetime.UTC)
    return max(0.0, (then - now).total_seconds())
