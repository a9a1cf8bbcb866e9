"""Tells a client that its job has ended: one POST to a URL whose host the operator has named.

Each is told in a task of its own, beside the jobs; few at once. The others wait in the folder,
where their jobs say that they were not told, and come again with the next look at it. What is told
ends with the job, where that is deleted, and with the process.
"""

import asyncio
import functools
import logging
import time
from collections.abc import Sequence

import msgspec

from serving.errors import InvalidRequestProblem, UnknownJobProblem
from serving.jobs.described import described
from serving.jobs.exchange import ExchangeError, post
from serving.jobs.store import Job, State
from serving.observability.loops import Loop, ends, in_thread
from serving.requests.job import check_webhook

logger = logging.getLogger(__name__)

MOST_AT_ONCE = 4
"""Webhooks that one process tells at once."""
_MOST_TELLS = 5
_LOOK_S = 0.2
"""How often it is seen whether a job is still there."""


class WebhookError(Exception):
    """The webhook did not take it."""


class Webhooks:
    """Tells those of the jobs of one process; again, after growing pauses, where that fails."""

    def __init__(self, hosts: Sequence[str], keep_s: float) -> None:
        """hosts: that may be told. keep_s: how long jobs are kept after their end."""
        self._hosts = tuple(hosts)
        self._keep_s = keep_s
        self._tried: dict[str, tuple[int, float]] = {}  # by job: how often, and when again
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._loop = Loop("webhooks")

    def start(self, jobs: Sequence[Job]) -> None:
        """Begins to tell of these jobs as many as it may, those that were tried least first.

        jobs: all that have ended and were not told.
        """
        ids, now = {job.id for job in jobs}, time.time()
        self._tried = {id: tried for id, tried in self._tried.items() if id in ids}
        for job in sorted(jobs, key=self._tries):
            if len(self._tasks) >= MOST_AT_ONCE:
                return
            if job.id not in self._tasks and now >= self._tries(job)[1]:
                task = asyncio.create_task(self._work(job))
                self._tasks[job.id] = task
                task.add_done_callback(functools.partial(self._ended, job.id))

    async def end(self) -> None:
        """Ends what goes on; it is told by the next process."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, id: str, task: asyncio.Task[None]) -> None:
        del self._tasks[id]

    def _tries(self, job: Job) -> tuple[int, float]:
        return self._tried.get(job.id, (0, 0.0))

    async def _work(self, job: Job) -> None:
        try:
            with job.claimed() as is_ours:  # of several processes one tells it
                state = await in_thread(job.state, "jobs") if is_ours else None
                if state is not None and state.ended is not None and not state.told:
                    await self._tell(job, state)
            self._loop.succeeded()
        except UnknownJobProblem:
            return
        except BaseException as error:
            if ends(error):
                raise
            if job.path.exists():
                num = self._tries(job)[0]
                self._tried[job.id] = (num, time.time() + self._loop.failed(error))

    async def _tell(self, job: Job, state: State) -> None:
        """Tells the webhook, if there is one, that the job has ended; now, or later again.

        Raises:
            UnknownJobProblem: the job is gone.
            OSError: that it was told can't be written down.
        """
        url = (await in_thread(job.spec, "jobs")).webhook
        num = self._tries(job)[0] + 1
        if url is not None and num <= _MOST_TELLS:
            # Counted before: whatever happens, it is not told without end.
            self._tried[job.id] = (num, time.time() + 2.0**num)
            text = msgspec.json.encode(
                await in_thread(lambda: described(job, self._keep_s), "jobs")
            )
            try:
                # Again: the operator may allow fewer hosts since the job was taken.
                check_webhook(url, self._hosts)
                await self._send(job, url, text)
            except (WebhookError, InvalidRequestProblem) as error:
                self._tried[job.id] = (num, time.time() + 2.0**num)
                if num < _MOST_TELLS:
                    return
                logger.warning("the webhook of job %s was not told: %s", job.id, error)
            self._tried[job.id] = (_MOST_TELLS, 0.0)  # only to be written down
        told = msgspec.structs.replace(state, told=True)
        await in_thread(functools.partial(job.write, told), "jobs")

    async def _send(self, job: Job, url: str, text: bytes) -> None:
        """Posts it, as long as the job is there.

        Raises:
            WebhookError: nobody answered, or not with success.
            UnknownJobProblem: the job was deleted.
        """
        sending = asyncio.create_task(post(url, text))
        try:
            while not (await asyncio.wait({sending}, timeout=_LOOK_S))[0]:
                if not job.path.exists():
                    raise UnknownJobProblem("deleted")
            status = sending.result()
        except ExchangeError as error:
            raise WebhookError(str(error)) from error
        finally:
            sending.cancel()
        if not 200 <= status < 300:
            raise WebhookError(f"it answered {status}")
