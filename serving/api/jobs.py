"""The routes of long jobs: more images than one request may ask for, made in the background."""

import functools
from collections.abc import AsyncGenerator
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path

from serving.api.operations import JSON, Operation, in_path
from serving.api.router import Route
from serving.api.schemas import Job as JobBody
from serving.api.schemas import Jobs as JobsBody
from serving.errors import (
    JobGoingOnProblem,
    JobsOffProblem,
    OverloadedProblem,
    UnavailableProblem,
    UnknownJobProblem,
    UnknownModelProblem,
)
from serving.http.messages import Request, Response
from serving.jobs.archives import ARCHIVES
from serving.jobs.described import described
from serving.jobs.store import Job, JobStore, unknown
from serving.keys.key import ADMIN, GENERATE, Key
from serving.observability import metrics
from serving.observability.loops import in_thread
from serving.process.service import Service
from serving.requests.job import JobRequest, read_job

_PIECE_BYTES = 256 << 10
_ID = in_path("id", "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f", "the job's, as POST /v1/jobs gave it")
_TAG = "Long jobs"
_EXAMPLE = {"model": "digits", "seeds": "1-5000", "labels": 7, "archive": "zip"}
_POST = Operation(
    id="job_post",
    summary="Takes a job: an image file of each seed, in one archive.",
    tag=_TAG,
    body={JSON: JobRequest},
    examples={"job": ("Five thousand images", _EXAMPLE)},
    response="The job was written down; Location says where it is.",
    content={JSON: JobBody},
    status=HTTPStatus.ACCEPTED,
    response_headers=("Location",),
    problems=(JobsOffProblem, UnknownModelProblem, OverloadedProblem, UnavailableProblem),
)
_LIST = Operation(
    id="jobs",
    summary="Every job.",
    tag=_TAG,
    response="All that the key may see, in their order.",
    content={JSON: JobsBody},
    problems=(JobsOffProblem,),
)
_GET = Operation(
    id="job",
    summary="How far a job is.",
    tag=_TAG,
    parameters=(_ID,),
    response="The job.",
    content={JSON: JobBody},
    problems=(JobsOffProblem, UnknownJobProblem),
)
_DELETE = Operation(
    id="job_delete",
    summary="Cancels a job, and removes it with its result.",
    tag=_TAG,
    parameters=(_ID,),
    response="As it was.",
    content={JSON: JobBody},
    problems=(JobsOffProblem, UnknownJobProblem, UnavailableProblem),
)
_RESULT = Operation(
    id="job_result",
    summary="The images of a job that is done.",
    tag=_TAG,
    parameters=(_ID,),
    response="The archive.",
    content={kind.media_type: bytes for kind in ARCHIVES.values()},
    response_headers=("Content-Disposition",),
    problems=(JobsOffProblem, UnknownJobProblem, JobGoingOnProblem),
)


class JobRoutes:
    """The handlers."""

    def __init__(self, service: Service, store: JobStore | None) -> None:
        """store: None where the server takes no jobs."""
        self._service = service
        self._settings = service.settings
        self._jobs = store

    def routes(self) -> list[Route]:
        """Lists the routes; where no jobs are taken, as such that never succeed."""
        one = "/v1/jobs/{id}"
        routes = [
            Route("POST", "/v1/jobs", self.add, _POST, changes_state=True, scope=GENERATE),
            Route("GET", "/v1/jobs", self.show_all, _LIST),
            Route("GET", one + "/result", self.result, _RESULT),
            Route("GET", one, self.show, _GET),
            Route("DELETE", one, self.delete, _DELETE, changes_state=True, scope=GENERATE),
        ]
        return routes if self._jobs is not None else [_without(route) for route in routes]

    async def add(self, request: Request) -> Response:
        """Writes a job down."""
        store = self._store()
        body = await request.body(self._settings.max_body_bytes)
        checked = read_job(body, self._service.catalogue, self._settings)
        key = request.context.key
        owner = None if key is None else key.name
        job = await in_thread(functools.partial(store.add, checked, owner), "jobs")
        location = (b"location", f"jobs/{job.id}".encode("ascii"))
        return Response.json(
            await self._described(job), status=HTTPStatus.ACCEPTED, headers=(location,)
        )

    async def show_all(self, request: Request) -> Response:
        """Describes all jobs that the key may see."""
        key = request.context.key
        found = await in_thread(functools.partial(self._listed, self._store(), key), "jobs")
        return Response.json(JobsBody(found))

    async def show(self, request: Request) -> Response:
        """Describes a job."""
        return Response.json(await self._described(await self._job(request)))

    async def delete(self, request: Request) -> Response:
        """Cancels a job and removes it."""
        job = await self._job(request)
        before = await self._described(job)
        try:
            await in_thread(functools.partial(self._store().remove, job), "jobs")
        except OSError as error:
            raise UnavailableProblem(
                f"the job can't be removed: {error.strerror or error}; ask again later"
            ) from error
        if before.ended is None:
            metrics.JOBS_ENDED.labels("deleted").inc()
        return Response.json(before)

    async def result(self, request: Request) -> Response:
        """Sends the archive, in pieces."""
        job = await self._job(request)
        found = await self._described(job)
        if found.status != "done":
            raise JobGoingOnProblem(
                f"the job is {found.status}, {found.num_done} of {found.num_images} images are "
                f"made{'' if found.problem is None else f' ({found.problem})'}; ask when it is done"
            )
        if await in_thread(lambda: job.has_lost(job.state()), "jobs"):
            raise JobGoingOnProblem(
                "storage has lost a part of the archive; it is made again; ask when it is done"
            )
        name = f"{found.model}-{found.id[:8]}.{found.archive}"
        headers = (
            (b"content-length", b"%d" % found.num_bytes),
            (b"content-disposition", f'attachment; filename="{name}"'.encode("ascii")),
        )
        return Response(
            b"",
            ARCHIVES[found.archive].media_type,
            headers=headers,
            pieces=_pieces(job.archive_path),
        )

    def _store(self) -> JobStore:
        if self._jobs is None:
            raise JobsOffProblem(
                "this server takes no jobs; send several requests, or ask the operator to start it "
                "with --jobs-folder"
            )
        return self._jobs

    async def _job(self, request: Request) -> Job:
        """The job that the path names.

        Raises:
            UnknownJobProblem: there is none, or it is another key's.
        """
        store, id, key = self._store(), request.params["id"], request.context.key

        def find() -> Job:
            job = store.job(id)
            if not _may_see(job, key):
                raise unknown(id)
            return job

        return await in_thread(find, "jobs")

    async def _described(self, job: Job) -> JobBody:
        keep_s = self._settings.jobs_keep_s
        return JobBody(**await in_thread(functools.partial(described, job, keep_s), "jobs"))

    def _listed(self, store: JobStore, key: Key | None) -> list[JobBody]:
        found = []
        for job in store.jobs():
            try:
                if _may_see(job, key):
                    found.append(JobBody(**described(job, self._settings.jobs_keep_s)))
            except UnknownJobProblem:
                continue  # deleted meanwhile
        return found


def _without(route: Route) -> Route:
    assert route.operation is not None
    text = "This server runs without --jobs-folder."
    return replace(route, operation=replace(route.operation, response="", description=text))


def _may_see(job: Job, key: Key | None) -> bool:
    return key is None or ADMIN in key.scopes or job.spec().owner == key.name


async def _pieces(path: Path) -> AsyncGenerator[bytes]:
    with path.open("rb") as file:
        while piece := await in_thread(functools.partial(file.read, _PIECE_BYTES), "jobs"):
            yield piece
