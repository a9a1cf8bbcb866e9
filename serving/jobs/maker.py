"""Makes the images of one job, a slice of time after the other, and writes them to its archive.

What the server can't do at the moment (too many requests, no worker, no room) lets the job wait,
and others go on; what will never go well ends it.
"""

import asyncio
import functools
import os
import time
from collections.abc import Sequence
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
from serving.jobs.room import Room
from serving.jobs.store import Job, JobStore, Rows, Spec, State
from serving.jobs.turns import JobFailure, Wait
from serving.keys.key import GENERATE, Key
from serving.observability.loops import in_thread
from serving.process.service import Service
from serving.requests.deadlines import Scheduling
from serving.requests.generate import GenerateRequest, Order, order

SLICE_S = 5.0
"""How long a job goes on before it is another owner's turn."""
_SAVE_S = 1.0
_HELD_UP_S = 1.0
_ABSENT_S = 120.0  # how long a model may not be served before a job of it has failed
_FOR_NOW = (OverloadedProblem, RateLimitedProblem, DeadlineProblem)


class JobMaker:
    """Of one HTTP process."""

    def __init__(self, service: Service, store: JobStore) -> None:
        """service: makes the images. store: has the room for them."""
        self._service = service
        self._settings = service.settings
        self._room = Room(store)
        self._absent: dict[str, tuple[int, float]] = {}  # by job: images it had, and since when

    def forget_all_but(self, ids: set[str]) -> None:
        """Only these jobs are left."""
        self._room.forget_all_but(ids)
        self._absent = {id: since for id, since in self._absent.items() if id in ids}

    async def go_on(self, job: Job, spec: Spec, state: State) -> State:
        """Makes more of a job that this process has claimed; gives its state, which is saved.

        Raises:
            JobFailure: it can't be done.
            Wait: it can't go on for now; what was made is saved.
            UnknownJobProblem: it was deleted.
        """
        rows = await in_thread(job.rows, "jobs")
        archive, began = ARCHIVES[spec.archive], time.monotonic()
        saved, saved_at = state, began
        state = msgspec.structs.replace(state, status="running")
        with job.archive_path.open("a+b") as file:
            if os.fstat(file.fileno()).st_size < state.num_bytes:  # storage has lost some of it
                state = msgspec.structs.replace(state, num_done=0, num_bytes=0)
            file.truncate(state.num_bytes)
            try:
                if saved.status != "running":
                    await in_thread(functools.partial(job.write, state), "jobs")
                    saved = state
                while state.num_done < spec.num_images:
                    if time.monotonic() - began >= SLICE_S:
                        await in_thread(functools.partial(_save, file, job, state), "jobs")
                        return state
                    state = await self._go_on_a_chunk(file, archive, job, spec, rows, state)
                    if time.monotonic() - saved_at >= _SAVE_S:
                        saved_at = time.monotonic()
                        await in_thread(functools.partial(_save, file, job, state), "jobs")
                        saved = state
            except Wait as wait:
                state = msgspec.structs.replace(
                    state, problem=str(wait), lacks_room=wait.lacks_room
                )
                if state != saved:
                    await in_thread(functools.partial(_save, file, job, state), "jobs")
                raise
            size = await in_thread(functools.partial(_add_end, file, archive), "jobs")
            state = msgspec.structs.replace(
                state,
                status="done",
                num_bytes=state.num_bytes + size,
                ended=time.time(),
                told=spec.webhook is None,
            )
            await in_thread(functools.partial(_save, file, job, state), "jobs")
        return state

    async def _go_on_a_chunk(
        self, file: BinaryIO, archive: Archive, job: Job, spec: Spec, rows: Rows, state: State
    ) -> State:
        key = self._key(spec)
        state = await in_thread(functools.partial(self._room.check, job, spec, state), "jobs")
        first = state.num_done
        stop = min(spec.num_images, first + self._chunk(key, spec))
        files = await self._files(job, spec, rows, slice(first, stop), key, state)
        work = functools.partial(self._add, job, spec, file, archive, files)
        size = await in_thread(work, "jobs")
        if not job.path.exists():
            raise UnknownJobProblem("deleted")
        return msgspec.structs.replace(
            state,
            num_done=stop,
            num_bytes=state.num_bytes + size,
            problem=None,
            num_faults=0,
            lacks_room=False,
        )

    async def _files(
        self, job: Job, spec: Spec, rows: Rows, part: slice, key: Key | None, state: State
    ) -> Sequence[tuple[str, bytes]]:
        """Makes some of the images: names and contents of their files.

        A model that isn't served may be in a moment: it is still being loaded after a start, or is
        unloaded and loaded again.
        """
        try:
            made = self._order(spec, rows, part)
            images = await self._images(job, made, key)
        except Problem as problem:
            is_passing = isinstance(problem, UnavailableProblem) and not problem.by_version
            if isinstance(problem, UnknownModelProblem):
                is_passing = self._may_come(job, state)
            if not (is_passing or isinstance(problem, _FOR_NOW)):
                raise JobFailure(problem.detail) from problem
            after_s = int(dict(problem.headers).get(b"retry-after", b"0"))
            raise Wait(
                problem.detail,
                max(_HELD_UP_S, min(60, after_s)),
                is_owners=isinstance(problem, RateLimitedProblem),
            ) from problem
        self._absent.pop(job.id, None)
        describes = self._settings.image_metadata
        work = functools.partial(_encoded, made, images, part.start, describes)
        return await in_thread(work, "jobs")

    def _may_come(self, job: Job, state: State) -> bool:
        """Whether a job's model may still be served again, which is unknown now."""
        num_done, since = self._absent.get(job.id, (-1, 0.0))
        if num_done != state.num_done:  # another process has made some meanwhile: it was there
            since = time.monotonic()
            self._absent[job.id] = (state.num_done, since)
        return time.monotonic() - since < _ABSENT_S

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

    def _key(self, spec: Spec) -> Key | None:
        """The key that a job is made for.

        Raises:
            Wait: the file of keys can't be read. Every key is refused then, though none was
                revoked.
            JobFailure: it may not any more.
        """
        access = self._service.access
        if spec.owner is None or not access.keys_required:
            return None
        if self._service.keys_fault is not None:
            raise Wait("the file of API keys can't be read", _HELD_UP_S)
        key = access.named(spec.owner, GENERATE)
        if key is None:
            raise JobFailure(f"the key {spec.owner!r} was revoked or has expired")
        return key

    def _add(
        self,
        job: Job,
        spec: Spec,
        file: BinaryIO,
        archive: Archive,
        files: Sequence[tuple[str, bytes]],
    ) -> int:
        """Writes more of an archive; gives the number of bytes.

        Raises:
            JobFailure: it would be too large.
            Wait: others' results have the room.
        """
        data = b"".join(archive.member(name, content) for name, content in files)
        self._room.take(job, spec, len(data))
        _append(file, data)
        return len(data)


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
