"""When to ask again, and how long to wait: a pure decision, the same for both clients.

Making images has no side effect, so asking twice is safe. Again where nobody answered, where the
server is full (429) or has no worker at the moment (503): as long as Retry-After says, else with
exponential back-off and full jitter. Not after 504: the time is over.
"""

import datetime
import email.utils
from dataclasses import dataclass

RETRIED = frozenset({429, 502, 503})


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How patient a client is."""

    attempts: int = 5
    """How often a request is sent at most; 1 never asks again."""
    first_s: float = 0.1
    """Upper bound of the first pause; it doubles each time."""
    most_s: float = 5.0
    """Upper bound of any pause that the server doesn't ask for."""

    def pause(
        self,
        attempt: int,
        status: int | None,
        retry_after_s: float | None,
        *,
        left_s: float,
        draw: float,
    ) -> float | None:
        """Seconds to wait before the next attempt, or None to give up.

        Args:
            attempt: how often it was sent, from 1 on.
            status: of the answer, None where there was none.
            retry_after_s: what the answer says.
            left_s: until the deadline of all attempts; a pause beyond it makes no sense.
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
    """Retry-After in seconds: a number or a date (RFC 9110, 10.2.3); None where it is neither."""
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
