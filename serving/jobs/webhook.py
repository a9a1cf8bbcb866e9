"""Tells a client that its job has ended: one POST to a URL whose host the operator has named."""

import http.client
import urllib.error
import urllib.request
from email.message import Message
from typing import IO

_TIMEOUT_S = 10.0


class WebhookError(Exception):
    """The webhook did not take it."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect could lead to a host that nobody has named."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> None:
        """Follows none."""
        return


_opener = urllib.request.build_opener(_NoRedirect)


def tell(url: str, body: bytes) -> None:
    """Sends JSON; blocks for some seconds at most.

    Raises:
        WebhookError: nobody answered, or not with success.
    """
    request = urllib.request.Request(
        url, data=body, headers={"Content-Type": "application/json"}, method="POST"
    )
    try:
        with _opener.open(request, timeout=_TIMEOUT_S):
            pass
    except urllib.error.HTTPError as error:
        with error:
            raise WebhookError(f"it answered {error.code}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:  # the last: it is no HTTP
        raise WebhookError(str(error)) from error
