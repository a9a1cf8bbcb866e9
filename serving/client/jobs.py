"""Long jobs of a server: asked for, watched, fetched, cancelled."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import msgspec

from models.image_files import require_free, whole_file
from serving.client.background import Background
from serving.client.errors import UnreachableError
from serving.client.requests import listed, rows
from serving.client.responses import Response, read

_PATH = "/v1/jobs"
_MOST_PAUSE_S = 5.0


class Job(msgspec.Struct, frozen=True):
    """A long job; times are seconds since 1970."""

    id: str
    status: Literal["waiting", "running", "done", "failed"]
    model: str
    version: int
    digest: str
    num_images: int
    num_done: int
    """Images that are made."""
    num_bytes: int
    """Of the archive, so far."""
    archive: str
    """tar or zip."""
    problem: str | None
    """Why it failed, or what holds it up."""
    ended: float | None
    """None while it goes on."""


class _Jobs(msgspec.Struct):
    jobs: list[Job]


class AsyncJobs:
    """Has the methods of `Jobs` as coroutines."""

    def __init__(
        self,
        send: Callable[..., Awaitable[Response]],
        save: Callable[[str, Callable[[bytes], Any]], Awaitable[None]],
        body: Callable[[dict[str, Any]], bytes],
    ) -> None:
        """Sets up.

        Args:
            send: sends a request, by method, path and body.
            save: writes what a path answers in pieces.
            body: encodes fields.
        """
        self._send, self._save, self._body = send, save, body

    async def submit(
        self,
        seeds: Sequence[int] | str | None = None,
        *,
        count: int | None = None,
        labels: Sequence[int] | int | None = None,
        truncation: float = 1.0,
        format: str = "png",
        archive: str = "tar",
        webhook: str | None = None,
        model: str | None = None,
        version: int | None = None,
    ) -> Job:
        """Asks for a job; returns at once. Is sent once: who gets no response looks at `all`.

        Args:
            seeds: integers in 0 .. 2**64 - 1, one image each, or a text of ranges: 1-50000,70000.
            count: instead of seeds: how many images of seeds that the server draws.
            labels: a class for each, or one for all; for conditional models.
            truncation: psi, 0 .. 2.
            format: of each image: png, jpeg, webp.
            archive: of all images: tar, zip.
            webhook: a URL that the server tells of the end, where its operator allows that.
            model: its name; may be left out where one is served.
            version: its number; CURRENT if left out.

        Raises:
            ClientError: of the kind that fits.
        """
        body = self._body(
            {
                "seeds": seeds if seeds is None or isinstance(seeds, str) else rows("seeds", seeds),
                "count": count,
                "labels": None if labels is None else listed("labels", labels),
                "truncation": truncation,
                "format": format,
                "archive": archive,
                "webhook": webhook,
                "model": model,
                "version": version,
            }
        )
        return read(await self._send("POST", _PATH, body, again=False), Job)

    async def all(self) -> list[Job]:
        """Every job that the client's key may see, in their order."""
        return read(await self._send("GET", _PATH), _Jobs).jobs

    async def status(self, id: str) -> Job:
        """How far a job is."""
        return read(await self._send("GET", _path(id)), Job)

    async def wait(
        self,
        id: str,
        *,
        timeout_s: float | None = None,
        on_progress: Callable[[Job], object] = lambda job: None,
    ) -> Job:
        """Returns a job when it has ended, done or failed.

        Args:
            id: of the job.
            timeout_s: how long to wait; None for ever.
            on_progress: called with the job whenever it was looked at.

        Raises:
            UnreachableError: it has not ended by then.
            ClientError: of the kind that fits.
        """
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        pause_s = 0.1
        while True:
            job = await self.status(id)
            on_progress(job)
            if job.ended is not None:
                return job
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise UnreachableError(
                    f"job {id} is {job.status} after {timeout_s:g} s, {job.num_done} of "
                    f"{job.num_images} images are made; wait longer, or ask again"
                )
            await asyncio.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, _MOST_PAUSE_S)

    async def save(self, id: str, path: Path, *, force: bool = False) -> None:
        """Writes the archive of a job that is done into a file, piece by piece.

        force: a file of that name is replaced.

        Raises:
            FileExistsError: there is a file.
            ClientError: of the kind that fits; no file is left then.
        """
        require_free([path], force=force)
        with whole_file(path) as file:
            await self._save(f"{_path(id)}/result", file.write)

    async def cancel(self, id: str) -> Job:
        """Ends a job, or removes one that has ended with its result; returns it as it was."""
        return read(await self._send("DELETE", _path(id)), Job)


class Jobs:
    """Long jobs, for callers that wait: those of `AsyncJobs`, with its arguments and errors."""

    def __init__(self, jobs: AsyncJobs, background: Background) -> None:
        """background: where the requests are sent."""
        self._jobs = jobs
        self._background = background

    def submit(self, seeds: Sequence[int] | str | None = None, **options: Any) -> Job:
        """Asks for a job; returns at once."""
        return self._background.run(self._jobs.submit, seeds, **options)

    def all(self) -> list[Job]:
        """Every job that the client's key may see."""
        return self._background.run(self._jobs.all)

    def status(self, id: str) -> Job:
        """How far a job is."""
        return self._background.run(self._jobs.status, id)

    def wait(self, id: str, **options: Any) -> Job:
        """Returns a job when it has ended, done or failed."""
        return self._background.run(self._jobs.wait, id, **options)

    def save(self, id: str, path: Path, *, force: bool = False) -> None:
        """Writes the archive of a job that is done into a file."""
        self._background.run(self._jobs.save, id, path, force=force)

    def cancel(self, id: str) -> Job:
        """Ends a job, or removes one that has ended with its result."""
        return self._background.run(self._jobs.cancel, id)


def _path(id: str) -> str:
    return f"{_PATH}/{quote(id, safe='')}"
