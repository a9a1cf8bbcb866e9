"""The folder of jobs, which all HTTP processes share and every next server takes over.

    FOLDER/lock            held while a job is added
    FOLDER/ID/job.json     what was asked for; never changes
    FOLDER/ID/rows.json    ... its seeds and labels, which may be many
    FOLDER/ID/state.json   how far it is; replaced by rename
    FOLDER/ID/lock         held by the process that makes it, and so free when that has died
    FOLDER/ID/images       the archive, as long as state.json says; what follows is not valid

A folder .ID is none of a job yet, or no more: it is being made, or removed. Whatever else lies
there is not ours, and stays.
"""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from serving.errors import OverloadedProblem, UnavailableProblem, UnknownJobProblem, quoted
from serving.requests.job import CheckedJob

_ID = re.compile(r"[0-9a-f]{32}")
_IMAGES = "images"

Kept = TypeVar("Kept")
Status = Literal["waiting", "running", "done", "failed"]


class Spec(msgspec.Struct, frozen=True):
    """What was asked for, and by whom."""

    model: str
    version: int
    digest: str
    num_images: int
    truncation: float
    format: str
    archive: str
    webhook: str | None
    owner: str | None
    """Name of the API key that it came with; None where the server had none."""
    created: float
    """Seconds since 1970."""
    pixels: int = 1
    """Of each image; those of earlier releases have none."""


class Rows(msgspec.Struct, frozen=True):
    """Of what each image is made."""

    seeds: list[int]
    labels: list[int] | int | None


class State(msgspec.Struct, frozen=True):
    """How far a job is."""

    status: Status = "waiting"
    num_done: int = 0
    """Images in the archive."""
    num_bytes: int = 0
    """Of the archive that are valid."""
    problem: str | None = None
    """Why it failed, or what holds it up."""
    ended: float | None = None
    """Seconds since 1970; None while it goes on."""
    told: bool = False
    """Whether its webhook was told of the end, or is no longer tried."""
    num_faults: int = 0
    """Failures that were not foreseen, one after the other."""
    lacks_room: bool = False
    """Whether it waits for the bytes that results of other jobs have."""
    after: str | None = None
    """The job that it gave its bytes to; it begins again when that one has ended."""


class Job:
    """A job in its folder."""

    def __init__(self, path: Path) -> None:
        """path: of its folder."""
        self.path = path
        self.id = path.name
        self.archive_path = path / _IMAGES

    def spec(self) -> Spec:
        """What was asked for.

        Raises:
            UnknownJobProblem: it is gone.
        """
        return self._read("job.json", Spec)

    def rows(self) -> Rows:
        """Of what its images are made.

        Raises:
            UnknownJobProblem: it is gone.
        """
        return self._read("rows.json", Rows)

    def state(self) -> State:
        """How far it is.

        Raises:
            UnknownJobProblem: it is gone.
        """
        return self._read("state.json", State)

    def write(self, state: State) -> None:
        """Replaces the state.

        Raises:
            OSError: it can't be written, or the job is gone.
        """
        _write(self.path / "state.json", msgspec.json.encode(state))

    def has_lost(self, state: State) -> bool:
        """Whether storage has lost a part of the archive that the state tells of."""
        try:
            return self.archive_path.stat().st_size < state.num_bytes
        except FileNotFoundError:
            return state.num_bytes > 0

    def _read(self, name: str, kind: type[Kept]) -> Kept:
        try:
            return msgspec.json.decode((self.path / name).read_bytes(), type=kind)
        except (FileNotFoundError, NotADirectoryError):
            raise unknown(self.id) from None
        except msgspec.DecodeError:
            if kind is Rows:
                raise  # the job fails, and says so
            raise unknown(self.id) from None  # nothing can be told of it, and others go on

    @contextlib.contextmanager
    def claimed(self) -> Iterator[bool]:
        """Holds the job for this process; gives False where another one has it, or it is gone."""
        try:
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            yield False
            return
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
            else:
                yield self.path.exists()
        finally:
            os.close(descriptor)


class JobStore:
    """All jobs of a server."""

    def __init__(
        self,
        folder: Path,
        *,
        max_jobs: int,
        max_bytes: int,
        max_jobs_per_key: int = 0,
        max_bytes_per_key: int = 0,
    ) -> None:
        """Sets up; makes the folder.

        Args:
            folder: where they lie.
            max_jobs: that may be there at once.
            max_bytes: of all archives together.
            max_jobs_per_key: of one owner at once; 0 for half of all, rounded up.
            max_bytes_per_key: of the archives of one owner; 0 for half of all, rounded up.

        Raises:
            OSError: the folder can't be made.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self.max_jobs = max_jobs
        self.max_bytes = max_bytes
        self._max_jobs_per_key = max_jobs_per_key or -(-max_jobs // 2)
        self._max_bytes_per_key = max_bytes_per_key or -(-max_bytes // 2)

    def jobs(self) -> list[Job]:
        """All of them, those that were asked for first at first."""
        with os.scandir(self._folder) as entries:
            found = [Job(Path(entry.path)) for entry in entries if _ID.fullmatch(entry.name)]
        dated = []
        for job in found:
            with contextlib.suppress(UnknownJobProblem):
                dated.append((job.spec().created, job.id, job))
        return [job for _, _, job in sorted(dated, key=lambda entry: entry[:2])]

    def job(self, id: str) -> Job:
        """One of them.

        Raises:
            UnknownJobProblem: there is none of this id.
        """
        if not _ID.fullmatch(id) or not (self._folder / id).is_dir():
            raise unknown(id)
        return Job(self._folder / id)

    def sizes(self) -> list[tuple[Job, Spec, int]]:
        """All jobs, as `jobs` lists them, what they are, and the bytes of their archives."""
        found = []
        for job in self.jobs():
            with contextlib.suppress(UnknownJobProblem):
                found.append((job, job.spec(), _size(job.archive_path)))
        return found

    def num_bytes(self) -> int:
        """Of all archives."""
        return sum(size for _, _, size in self.sizes())

    def share_bytes(self, owner: str | None) -> int:
        """That the archives of one owner may have; None, who is everybody, may have all."""
        return self.max_bytes if owner is None else min(self.max_bytes, self._max_bytes_per_key)

    def add(self, checked: CheckedJob, owner: str | None) -> Job:
        """Writes a job down.

        Raises:
            OverloadedProblem: there are too many, or their results fill what they may.
            UnavailableProblem: it can't be written.
        """
        try:
            with self._alone():
                self._check_room(owner)
                return self._added(checked, owner)
        except OSError as error:
            raise UnavailableProblem(
                f"the job can't be written down: {error.strerror or error}; ask again later"
            ) from error

    def remove(self, job: Job) -> None:
        """Removes a job and its result at once, also where it is being made.

        Raises:
            OSError: that can't be done.
        """
        gone = job.path.with_name(f".{job.id}")
        with contextlib.suppress(FileNotFoundError):
            job.path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def sweep(self) -> None:
        """Removes what a process that died left half made or half removed."""
        with contextlib.suppress(OSError), self._alone(), os.scandir(self._folder) as entries:
            for entry in entries:
                # Nothing else: whoever names a home has other folders there that begin with a dot.
                is_ours = entry.name[:1] == "." and _ID.fullmatch(entry.name[1:]) is not None
                if is_ours and entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)

    def _added(self, checked: CheckedJob, owner: str | None) -> Job:
        spec = Spec(
            model=checked.model,
            version=checked.version,
            digest=checked.digest,
            num_images=len(checked.seeds),
            truncation=checked.truncation,
            format=checked.format,
            archive=checked.archive,
            webhook=checked.webhook,
            owner=owner,
            created=time.time(),
            pixels=checked.pixels,
        )
        rows = Rows(checked.seeds, checked.labels)
        id = secrets.token_hex(16)
        temporary = self._folder / f".{id}"
        temporary.mkdir(mode=0o700)
        try:
            _write(temporary / "job.json", msgspec.json.encode(spec))
            _write(temporary / "rows.json", msgspec.json.encode(rows))
            _write(temporary / "state.json", msgspec.json.encode(State()))
            temporary.rename(self._folder / id)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        return Job(self._folder / id)

    def _check_room(self, owner: str | None) -> None:
        sizes = self.sizes()
        if owner is not None:
            own = [size for _, spec, size in sizes if spec.owner == owner]
            self._check_share(owner, len(own), sum(own))
        if len(sizes) >= self.max_jobs:
            raise _full(f"there are {len(sizes)} jobs, {self.max_jobs} may be")
        num_bytes = sum(size for _, _, size in sizes)
        if num_bytes >= self.max_bytes:
            raise _full(f"the results of jobs have {num_bytes} bytes, {self.max_bytes} may be")

    def _check_share(self, owner: str, num: int, num_bytes: int) -> None:
        if num >= self._max_jobs_per_key:
            raise _full(f"key {owner!r} has {num} jobs, {self._max_jobs_per_key} may be of one key")
        share = self.share_bytes(owner)
        if num_bytes >= share:
            raise _full(
                f"the results of key {owner!r} have {num_bytes} bytes, {share} may be of one key"
            )

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def unknown(id: str) -> UnknownJobProblem:
    """The problem of a job that is not there."""
    return UnknownJobProblem(f"there is no job {quoted(id)}: it was deleted, or has expired")


def _full(text: str) -> OverloadedProblem:
    return OverloadedProblem(
        f"{text}; delete those of yours that have ended, or ask again later",
        headers=((b"retry-after", b"60"),),
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _write(path: Path, data: bytes) -> None:
    """Replaces a file whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
