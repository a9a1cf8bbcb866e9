"""Goes on with the jobs that wait, one at a time in each HTTP process, after all other requests.

A process that dies leaves a job as its last state says, and whichever process comes next goes on
from there. Owners take turns, of some seconds each. A job that must wait, for its key's rate or for
room, stands aside and holds nobody up; nor does a webhook, which is told beside.
"""

import asyncio
import contextlib
import functools
import logging
import os
import time
from collections.abc import AsyncIterator

import msgspec

from serving.errors import UnknownJobProblem
from serving.jobs.maker import JobMaker
from serving.jobs.store import Job, JobStore, Spec, State
from serving.jobs.turns import JobFailure, Owner, Turns, Wait
from serving.jobs.webhook import Webhooks
from serving.observability import metrics
from serving.observability.loops import Loop, ends, in_thread
from serving.process.service import Service

logger = logging.getLogger(__name__)

TURN_S = 0.5
"""How often the folder is looked at."""
_MOST_FAULTS = 5
_STATUSES = ("waiting", "running", "done", "failed")


class JobRunner:
    """Of one HTTP process."""

    def __init__(self, service: Service, store: JobStore) -> None:
        """service: makes the images."""
        self._store = store
        self._settings = service.settings
        self._has_swept = False
        self._turns = Turns()
        self._maker = JobMaker(service, store)
        self._webhooks = Webhooks(self._settings.webhook_hosts, self._settings.jobs_keep_s)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Goes on with jobs meanwhile."""
        task = asyncio.create_task(Loop("jobs", last_pause_s=10.0).run(self._turn))
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await self._webhooks.end()

    async def _turn(self) -> float:
        to_do, to_tell = await in_thread(self._look, "jobs")
        self._webhooks.start(to_tell)
        for job, owner in self._turns.order(to_do):
            with job.claimed() as is_ours:
                if is_ours:
                    self._turns.begin(owner)
                    await self._go_on(job, owner)
                    return 0.0
        return TURN_S

    def _look(self) -> tuple[list[tuple[Job, Owner]], list[Job]]:
        """What is to be made, and who is to be told; removes what has expired, and counts."""
        if not self._has_swept:
            self._store.sweep()
            self._has_swept = True
        now = time.time()
        counts = dict.fromkeys(_STATUSES, 0)
        to_do: list[tuple[Job, Owner]] = []
        to_tell: list[Job] = []
        for job in self._store.jobs():
            with contextlib.suppress(UnknownJobProblem):
                state = job.state()
                if state.ended is not None and now > state.ended + self._settings.jobs_keep_s:
                    self._store.remove(job)
                    continue
                if state.status == "done" and job.has_lost(state):
                    state = _begun_again(job)
                counts[state.status] += 1
                if state.ended is None:
                    to_do.append((job, job.spec().owner))
                elif not state.told:
                    to_tell.append(job)
        self._turns.forget_all_but(to_do)
        self._maker.forget_all_but({job.id for job, _ in to_do})
        for status, num in counts.items():
            metrics.JOBS.labels(status).set(num)
        metrics.JOBS_BYTES.set(self._store.num_bytes())
        return to_do, to_tell

    async def _go_on(self, job: Job, owner: Owner) -> None:
        """Works for a while on a job that this process has claimed."""
        try:
            state = await in_thread(job.state, "jobs")
            if state.ended is None:
                spec = await in_thread(job.spec, "jobs")
                await self._make(job, spec, state)
        except Wait as wait:
            self._turns.put_aside(job, owner, wait)
        except UnknownJobProblem:
            return
        except BaseException as error:
            if ends(error):
                raise
            if not job.path.exists():
                return  # deleted meanwhile, which is what failed
            await self._note_fault(job, error)
            raise

    async def _make(self, job: Job, spec: Spec, state: State) -> None:
        try:
            state = await self._maker.go_on(job, spec, state)
        except JobFailure as failure:
            logger.warning("job %s failed: %s", job.id, failure)
            job.archive_path.unlink(missing_ok=True)
            ended = State(status="failed", problem=str(failure), ended=time.time())
            await in_thread(functools.partial(job.write, ended), "jobs")
            metrics.JOBS_ENDED.labels("failed").inc()
        else:
            if state.ended is not None:
                metrics.JOBS_ENDED.labels("done").inc()
                logger.info("job %s is done: %d images", job.id, spec.num_images)

    async def _note_fault(self, job: Job, error: BaseException) -> None:
        """Writes down what was not foreseen; a job that meets it again and again has failed.

        A disk that is full, or gone, is nobody's fault: that ends no job. What it has made stays.
        """
        with contextlib.suppress(Exception):
            state = job.state()
            if state.ended is not None:
                return
            if isinstance(error, OSError):
                with contextlib.suppress(FileNotFoundError):
                    # What is not valid yet goes: else there may be no room to say what is wrong.
                    if job.archive_path.stat().st_size > state.num_bytes:
                        os.truncate(job.archive_path, state.num_bytes)
                told = f"it can't be written: {error.strerror or error}"
                state = msgspec.structs.replace(state, problem=told)
            elif state.num_faults + 1 >= _MOST_FAULTS:
                state = State(status="failed", problem="an unexpected error", ended=time.time())
                metrics.JOBS_ENDED.labels("failed").inc()
            else:
                # Its words are for the log: they may name files of this machine.
                told = "an unexpected error; it is tried again"
                state = msgspec.structs.replace(
                    state, problem=told, num_faults=state.num_faults + 1
                )
            job.write(state)


def _begun_again(job: Job) -> State:
    """Lets a job be made anew whose archive was lost: it can be, byte for byte."""
    with job.claimed() as is_ours:
        state = job.state()
        if not is_ours or state.status != "done" or not job.has_lost(state):
            return state  # another process was first
        logger.warning("job %s: storage has lost a part of its archive; it is made again", job.id)
        state = State(problem="a part of the archive was lost; it is made again", told=state.told)
        job.write(state)
        return state
