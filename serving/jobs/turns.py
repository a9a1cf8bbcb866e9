"""Which job of one process is next: the owners take turns, and a job that must wait stands aside.

A job stands aside in this process alone. Another process that takes it meets the same obstacle, and
puts it aside as well.
"""

import time
from collections.abc import Iterable, Sequence

from serving.jobs.store import Job

Owner = str | None


class JobFailure(Exception):  # noqa: N818 - it is told to the client
    """A job that can't be done; its text says why."""


class Wait(Exception):  # noqa: N818 - nothing has failed
    """A job can't go on for now, though others may; its text says why."""

    def __init__(
        self, text: str, seconds: float, *, is_owners: bool = False, lacks_room: bool = False
    ) -> None:
        """Sets up.

        Args:
            text: what holds it up; its owner reads it.
            seconds: how long it stands aside.
            is_owners: no other job of its owner can go on either.
            lacks_room: others' results have the bytes that it needs.
        """
        super().__init__(text)
        self.seconds = seconds
        self.is_owners = is_owners
        self.lacks_room = lacks_room


class Turns:
    """Of one process."""

    def __init__(self) -> None:
        """Nobody has had a turn."""
        self._jobs: dict[str, float] = {}  # not before this time of the monotonic clock
        self._owners: dict[Owner, float] = {}  # ... for all jobs of an owner
        self._served: dict[Owner, int] = {}  # the number of an owner's last turn
        self._num_turns = 0

    def forget_all_but(self, jobs: Sequence[tuple[Job, Owner]]) -> None:
        """Only these jobs are left."""
        ids, owners = {job.id for job, _ in jobs}, {owner for _, owner in jobs}
        self._jobs = {id: time for id, time in self._jobs.items() if id in ids}
        self._owners = {owner: time for owner, time in self._owners.items() if owner in owners}
        self._served = {owner: turn for owner, turn in self._served.items() if owner in owners}

    def order(self, jobs: Iterable[tuple[Job, Owner]]) -> list[tuple[Job, Owner]]:
        """Those that may go on now: of the owner who has waited longest first, else as they are."""
        now = time.monotonic()
        ready = [
            (job, owner)
            for job, owner in jobs
            if now >= self._jobs.get(job.id, 0.0) and now >= self._owners.get(owner, 0.0)
        ]
        return sorted(ready, key=lambda entry: self._served.get(entry[1], 0))

    def begin(self, owner: Owner) -> None:
        """It is the turn of a job of this owner."""
        self._num_turns += 1
        self._served[owner] = self._num_turns

    def put_aside(self, job: Job, owner: Owner, wait: Wait) -> None:
        """A job waits, and the others go on."""
        until = time.monotonic() + wait.seconds
        if wait.is_owners:
            self._owners[owner] = until
        else:
            self._jobs[job.id] = until
