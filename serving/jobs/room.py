"""Room for the archives of jobs: a share for each key, and all of them together.

A job whose archive alone is too large has failed. One that meets the bytes of other jobs waits for
them to go. Two jobs that each hold a part of what the other needs would wait for ever: of jobs that
wait the younger one gives up what it has, and begins again when the older one has ended. It loses
time alone: its archive will be the same, byte for byte.
"""

import contextlib
import os

import msgspec

from serving.errors import UnknownJobProblem
from serving.jobs.store import Job, JobStore, Spec, State
from serving.jobs.turns import JobFailure, Wait

_WAIT_S = 5.0
_AFTER_OTHERS = "it waits until an older job has ended, which needs the room; then it begins again"


class Room:
    """What the jobs of one process may write."""

    def __init__(self, store: JobStore) -> None:
        """store: whose room it is."""
        self._store = store
        self._needed: dict[str, int] = {}  # by job: the size of the part that had no room

    def forget_all_but(self, ids: set[str]) -> None:
        """Only these jobs are left."""
        self._needed = {id: size for id, size in self._needed.items() if id in ids}

    def check(self, job: Job, spec: Spec, state: State) -> State:
        """Whether a job may make more: without it, what is made would have no place; blocks.

        Returns:
            Its state, of a job that no longer waits for an older one.

        Raises:
            JobFailure: its archive alone is too large.
            Wait: there is no room for now.
        """
        if state.after is not None:
            if self._is_going_on(state.after):
                raise Wait(_AFTER_OTHERS, _WAIT_S, lacks_room=True)
            state = msgspec.structs.replace(state, after=None)
        self.take(job, spec, self._needed.get(job.id, 1))
        return state

    def take(self, job: Job, spec: Spec, num_bytes: int) -> None:
        """Lets a job write more; blocks.

        Raises:
            JobFailure: its archive alone is too large.
            Wait: there is no room for now.
        """
        share, most = self._store.share_bytes(spec.owner), self._store.max_bytes
        sizes = self._store.sizes()
        own = num_bytes + sum(size for other, _, size in sizes if other.id == job.id)
        if own > share:
            whose = "one job" if spec.owner is None else "all jobs of one key"
            raise JobFailure(
                f"its archive would have {own} bytes, {share} may be of {whose}: ask for fewer "
                "images, in several jobs, and delete each when you have fetched it"
            )
        shared = [entry for entry in sizes if entry[1].owner == spec.owner]
        for entries, allowed, whose in ((shared, share, "your jobs"), (sizes, most, "all jobs")):
            total = num_bytes + sum(size for _, _, size in entries)
            if total > allowed:
                self._needed[job.id] = num_bytes
                has_freed = _freed(job, spec, entries)
                raise Wait(
                    f"it waits for room: the results of {whose} would have {total} bytes, "
                    f"{allowed} may be; it goes on when others are deleted or have expired: delete "
                    "jobs of yours that have ended",
                    0.0 if has_freed else _WAIT_S,
                    lacks_room=True,
                )
        self._needed.pop(job.id, None)

    def _is_going_on(self, id: str) -> bool:
        with contextlib.suppress(UnknownJobProblem):
            return self._store.job(id).state().ended is None
        return False


def _freed(job: Job, spec: Spec, entries: list[tuple[Job, Spec, int]]) -> bool:
    """Takes the bytes of the youngest job that waits for room as well, if it is younger."""
    for other, others, size in reversed(entries):
        if (others.created, other.id) <= (spec.created, job.id):
            break
        if size == 0:
            continue
        with other.claimed() as is_ours, contextlib.suppress(UnknownJobProblem):
            state = other.state() if is_ours else None
            if state is not None and state.ended is None and state.lacks_room:
                other.write(
                    msgspec.structs.replace(
                        state, num_done=0, num_bytes=0, problem=_AFTER_OTHERS, after=job.id
                    )
                )
                os.truncate(other.archive_path, 0)
                return True
    return False
