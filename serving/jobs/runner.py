"""Makes the jobs that wait, one at a time in each HTTP process, after everybody else's requests.

A process that dies leaves a job as its last state says, and whichever process comes next goes on
from there. What the server can't do at the moment (too many requests, no worker, a full disk) holds
a job up; what will never go well ends it.
"""

import asyncio
import contextlib
import functools
import logging
import os
import time
from collections.abc import AsyncIterator, Sequence
from typing import BinaryIO

import msgspec

from models.bundle.generator import Images
from serving.dispatch.tickets import Ticket
from serving.encoding.bodies import FileEncoding
from serving.errors import (
    ClientGoneError,
    DeadlineProblem,
    OverloadedProblem,
    Problem,
    RateLimitedProblem,
    UnavailableProblem,
    UnknownJobProblem,
    UnknownModelProblem,
)
from serving.http.context import RequestContext
from serving.http.memory import Hold
from serving.jobs.archives import ARCHIVES, Archive
from serving.jobs.store import Job, JobStore, Rows, Spec, State
from serving.jobs.webhook import Webhooks
from serving.keys.key import GENERATE, Key
from serving.observability import metrics
from serving.observability.loops import Loop, ends, in_thread
from serving.process.service import Service
from serving.requests.deadlines import Scheduling
from serving.requests.generate import GenerateRequest, Order, order

logger = logging.getLogger(__name__)

TURN_S = 0.5
"""How often the folder is looked at."""
_SAVE_S = 1.0
_HELD_UP_S = 1.0
_ABSENT_S = 120.0  # how long a model may not be served before a job of it has failed
_MOST_FAULTS = 5
_STATUSES = ("waiting", "running", "done", "failed")
_FOR_NOW = (OverloadedProblem, RateLimitedProblem, DeadlineProblem)


class JobFailure(Exception):  # noqa: N818 - it is told to the client
    """A job that can't be done; its text says why."""


class JobRunner:
    """Of one HTTP process."""

    def __init__(self, service: Service, store: JobStore) -> None:
        """service: makes the images."""
        self._service = service
        self._store = store
        self._settings = service.settings
        self._has_swept = False
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

    async def _turn(self) -> float:
        jobs = await in_thread(self._look, "jobs")
        for job in jobs:
            with job.claimed() as is_ours:
                if is_ours:
                    await self._go_on(job)
                    return 0.0
        return TURN_S

    def _look(self) -> list[Job]:
        """What there is to do; removes what has expired, and counts."""
        if not self._has_swept:
            self._store.sweep()
            self._has_swept = True
        now = time.time()
        counts = dict.fromkeys(_STATUSES, 0)
        to_do: list[Job] = []
        jobs = self._store.jobs()
        self._webhooks.forget_all_but({job.id for job in jobs})
        for job in jobs:
            with contextlib.suppress(UnknownJobProblem):
                state = job.state()
                if state.ended is not None and now > state.ended + self._settings.jobs_keep_s:
                    self._store.remove(job)
                    continue
                if state.status == "done" and job.has_lost(state):
                    state = _begun_again(job)
                counts[state.status] += 1
                if state.ended is None or self._webhooks.must_tell(job, state, now):
                    to_do.append(job)
        for status, num in counts.items():
            metrics.JOBS.labels(status).set(num)
        metrics.JOBS_BYTES.set(self._store.num_bytes())
        return to_do

    async def _go_on(self, job: Job) -> None:
        """Works on a job that this process has claimed, to its end."""
        try:
            state = await in_thread(job.state, "jobs")
            if state.ended is None:
                state = await self._make(job, state)
            await self._webhooks.tell(job, state)
        except UnknownJobProblem:
            return
        except BaseException as error:
            if ends(error):
                raise
            if not job.path.exists():
                return  # deleted meanwhile, which is what failed
            await self._note_fault(job, error)
            raise

    async def _make(self, job: Job, state: State) -> State:
        spec = await in_thread(job.spec, "jobs")
        rows = await in_thread(job.rows, "jobs")
        try:
            return await self._make_all(job, spec, rows, state)
        except JobFailure as failure:
            logger.warning("job %s failed: %s", job.id, failure)
            job.archive_path.unlink(missing_ok=True)
            ended = State(status="failed", problem=str(failure), ended=time.time())
            await in_thread(functools.partial(job.write, ended), "jobs")
            metrics.JOBS_ENDED.labels("failed").inc()
            return ended

    async def _make_all(self, job: Job, spec: Spec, rows: Rows, state: State) -> State:
        archive, saved = ARCHIVES[spec.archive], time.monotonic()
        state = msgspec.structs.replace(state, status="running")
        with job.archive_path.open("a+b") as file:
            if os.fstat(file.fileno()).st_size < state.num_bytes:  # storage has lost some of it
                state = msgspec.structs.replace(state, num_done=0, num_bytes=0)
            file.truncate(state.num_bytes)
            if state.num_done == 0:
                await in_thread(functools.partial(job.write, state), "jobs")
            while state.num_done < spec.num_images:
                key = await self._key(job, spec, state)
                first = state.num_done
                stop = min(spec.num_images, first + self._chunk(key, spec))
                files = await self._files(job, spec, rows, slice(first, stop), key, state)
                size = await in_thread(functools.partial(self._add, file, archive, files), "jobs")
                state = msgspec.structs.replace(
                    state,
                    num_done=stop,
                    num_bytes=state.num_bytes + size,
                    problem=None,
                    num_faults=0,
                )
                if not job.path.exists():
                    raise UnknownJobProblem("deleted")
                if time.monotonic() - saved >= _SAVE_S:
                    saved = time.monotonic()
                    await in_thread(functools.partial(_save, file, job, state), "jobs")
            size = await in_thread(functools.partial(_add_end, file, archive), "jobs")
            state = msgspec.structs.replace(
                state,
                status="done",
                num_bytes=state.num_bytes + size,
                ended=time.time(),
                told=spec.webhook is None,
            )
            await in_thread(functools.partial(_save, file, job, state), "jobs")
        metrics.JOBS_ENDED.labels("done").inc()
        logger.info("job %s is done: %d images", job.id, spec.num_images)
        return state

    async def _files(
        self, job: Job, spec: Spec, rows: Rows, part: slice, key: Key | None, state: State
    ) -> Sequence[tuple[str, bytes]]:
        """Makes some of the images: names and contents of their files; waits as long as it must.

        A model that isn't served may be in a moment: it is still being loaded after a start, or is
        unloaded and loaded again.
        """
        patient_until = time.monotonic() + _ABSENT_S
        while True:
            try:
                made = self._order(spec, rows, part)
                images = await self._images(job, made, key)
            except JobFailure:
                raise
            except Problem as problem:
                is_passing = isinstance(problem, UnavailableProblem) and not problem.by_version
                if isinstance(problem, UnknownModelProblem):
                    is_passing = time.monotonic() < patient_until
                if not (is_passing or isinstance(problem, _FOR_NOW)):
                    raise JobFailure(problem.detail) from problem
                held_up = msgspec.structs.replace(state, problem=problem.detail)
                await in_thread(functools.partial(job.write, held_up), "jobs")
                wait = dict(problem.headers).get(b"retry-after", b"0")
                await asyncio.sleep(max(_HELD_UP_S, min(60, int(wait))))
                key = await self._key(job, spec, state)
            else:
                describes = self._settings.image_metadata
                work = functools.partial(_encoded, made, images, part.start, describes)
                return await in_thread(work, "jobs")

    def _order(self, spec: Spec, rows: Rows, part: slice) -> Order:
        labels = rows.labels[part] if isinstance(rows.labels, list) else rows.labels
        request = GenerateRequest(
            model=spec.model,
            version=spec.version,
            seeds=list(rows.seeds[part]),
            labels=labels,
            truncation=spec.truncation,
            format=spec.format,  # type: ignore[arg-type]
        )
        made = order(request, self._service.catalogue, self._settings)
        if made.digest != spec.digest:
            raise JobFailure(
                f"version {spec.version} of {spec.model!r} is another model now: its digest was "
                f"{spec.digest[:12]}..., and is {made.digest[:12]}..."
            )
        return made

    async def _images(self, job: Job, made: Order, key: Key | None) -> Images:
        """Makes images [N, H, W, C], in the turns that other requests leave."""
        context = RequestContext(
            "/v1/jobs", "POST", lambda name: None, job.id.encode("ascii"), time.perf_counter()
        )
        hold = context.hold = Hold(self._service.connections.memory)
        context.key = key
        ticket: Ticket | None = None
        scheduling = Scheduling(self._settings.request_timeout_ms, bulk=True)
        try:
            ticket = self._service.submit(made, scheduling, context)
            async with asyncio.timeout(scheduling.timeout_ms / 1e3):
                return await asyncio.shield(ticket.done)
        except TimeoutError:
            raise scheduling.problem() from None
        finally:
            if ticket is not None and not ticket.done.done():
                self._service.batcher.cancel(ticket, ClientGoneError())
                ticket.done.exception()  # asyncio logs those that nobody has asked for
            hold.release()

    def _chunk(self, key: Key | None, spec: Spec) -> int:
        settings = self._settings
        fitting = max(1, settings.max_image_pixels // spec.pixels)
        most = min(settings.max_batch_rows, settings.max_seeds, fitting)
        return most if key is None or key.rows_per_s is None else min(most, key.burst)

    async def _key(self, job: Job, spec: Spec, state: State) -> Key | None:
        """The key that a job is made for; waits while the file of keys can't be read.

        Every key is refused then, though none was revoked.

        Raises:
            JobFailure: it may not any more.
        """
        access = self._service.access
        if spec.owner is None or not access.keys_required:
            return None
        while self._service.keys_fault is not None:
            told = "the file of API keys can't be read"
            held_up = msgspec.structs.replace(state, problem=told)
            await in_thread(functools.partial(job.write, held_up), "jobs")
            await asyncio.sleep(_HELD_UP_S)
        key = access.named(spec.owner, GENERATE)
        if key is None:
            raise JobFailure(f"the key {spec.owner!r} was revoked or has expired")
        return key

    def _add(self, file: BinaryIO, archive: Archive, files: Sequence[tuple[str, bytes]]) -> int:
        """Writes more of an archive; gives the number of bytes.

        Raises:
            JobFailure: all of them together would be too large.
        """
        data = b"".join(archive.member(name, content) for name, content in files)
        total = self._store.num_bytes() + len(data)
        if total > self._store.max_bytes:
            raise JobFailure(
                f"the results of jobs would have {total} bytes, {self._store.max_bytes} may be: "
                "delete jobs that have ended, or ask for fewer images"
            )
        _append(file, data)
        return len(data)

    async def _note_fault(self, job: Job, error: BaseException) -> None:
        """Writes down what was not foreseen; a job that meets it again and again has failed.

        A disk that is full, or gone, is nobody's fault: that ends no job. What a job has made stays
        whatever its webhook does.
        """
        with contextlib.suppress(Exception):
            state = job.state()
            if state.ended is not None:
                state = msgspec.structs.replace(state, told=True)
            elif isinstance(error, OSError):
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


def _append(file: BinaryIO, data: bytes) -> None:
    file.write(data)
    file.flush()


def _add_end(file: BinaryIO, archive: Archive) -> int:
    """Ends an archive; gives the number of bytes. A zip file's whole list is read from the disk."""
    end = b"".join(archive.end(file.fileno()))
    _append(file, end)
    return len(end)


def _save(file: BinaryIO, job: Job, state: State) -> None:
    """Writes a state down, after the part of the archive that it counts is on the disk."""
    os.fsync(file.fileno())
    job.write(state)


def _encoded(made: Order, images: Images, first: int, describes: bool) -> list[tuple[str, bytes]]:
    """Names and contents of the files; first: the number of the first image in its job."""
    encoding = made.encoding
    assert isinstance(encoding, FileEncoding)
    assert made.seeds is not None
    kind = encoding.format.name
    found = []
    for row, data in enumerate(encoding.format.encode_all(images)):
        name = f"{first + row:08d}-{made.seeds[row]}"
        if made.labels is not None:
            name += f"-label{made.labels[row]}"
        told = made.told(data, kind, row) if describes else data
        found.append((f"{name}.{kind}", told))
    return found
