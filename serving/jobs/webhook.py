"""Tells a client that its job has ended: one POST to a URL whose host the operator has named."""

import functools
import http.client
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from email.message import Message
from typing import IO

import msgspec

from serving.errors import InvalidRequestProblem
from serving.jobs.described import described
from serving.jobs.store import Job, State
from serving.observability.loops import in_thread
from serving.requests.job import check_webhook

logger = logging.getLogger(__name__)

_TIMEOUT_S = 10.0
_MOST_TELLS = 5


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


class Webhooks:
    """Tells those of the jobs of one process; again, after growing pauses, where that fails."""

    def __init__(self, hosts: Sequence[str], keep_s: float) -> None:
        """hosts: that may be told. keep_s: how long jobs are kept after their end."""
        self._hosts = tuple(hosts)
        self._keep_s = keep_s
        self._tried: dict[str, tuple[int, float]] = {}  # by job: how often, and when again

    def forget_all_but(self, ids: set[str]) -> None:
        """Only these jobs are left."""
        self._tried = {id: tried for id, tried in self._tried.items() if id in ids}

    def must_tell(self, job: Job, state: State, now: float) -> bool:
        """Whether it is time to tell a job's webhook; blocks for a file.

        Raises:
            UnknownJobProblem: the job is gone.
        """
        if state.told or job.spec().webhook is None:
            return False
        return now >= self._tried.get(job.id, (0, 0.0))[1]

    async def tell(self, job: Job, state: State) -> None:
        """Tells the webhook, if there is one, that the job has ended; now, or later again.

        Raises:
            UnknownJobProblem: the job is gone.
            OSError: that it was told can't be written down.
        """
        if state.told or state.ended is None:
            return
        url = (await in_thread(job.spec, "jobs")).webhook
        if url is not None:
            text = msgspec.json.encode(described(job, self._keep_s))
            try:
                # Again: the operator may allow fewer hosts since the job was taken.
                check_webhook(url, self._hosts)
                await in_thread(functools.partial(tell, url, text), "webhook")
            except (WebhookError, InvalidRequestProblem) as error:
                num = self._tried.get(job.id, (0, 0.0))[0] + 1
                if num < _MOST_TELLS:
                    self._tried[job.id] = (num, time.time() + 2.0**num)
                    return
                logger.warning("the webhook of job %s was not told: %s", job.id, error)
        self._tried.pop(job.id, None)
        told = msgspec.structs.replace(state, told=True)
        await in_thread(functools.partial(job.write, told), "jobs")
