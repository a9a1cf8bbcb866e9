"""Room for archives: what fails, what waits, and that no two jobs wait for each other."""

from pathlib import Path

import pytest

from serving.jobs.room import Room
from serving.jobs.store import Job, JobStore, State
from serving.jobs.turns import JobFailure, Wait
from serving.requests.job import CheckedJob


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path / "jobs", max_jobs=9, max_bytes=100, max_bytes_per_key=60)


def add(store: JobStore, owner: str | None, num_bytes: int = 0, **state: object) -> Job:
    job = store.add(CheckedJob("grey", 1, "aa", [1], None, 1.0, "png", "tar", None, 64), owner)
    job.archive_path.write_bytes(bytes(num_bytes))
    job.write(State(status="running", num_done=1, num_bytes=num_bytes, **state))  # type: ignore[arg-type]
    return job


def take(room: Room, job: Job, num_bytes: int) -> None:
    room.take(job, job.spec(), num_bytes)


def test_an_archive_that_alone_is_too_large_ends_its_job(store: JobStore) -> None:
    room = Room(store)
    job = add(store, "alice", 40)
    take(room, job, 20)
    with pytest.raises(JobFailure, match="would have 61 bytes, 60 may be of all jobs of one key"):
        take(room, job, 21)
    store.remove(job)
    alone = add(store, None, 40)
    take(room, alone, 60)
    with pytest.raises(JobFailure, match="101 bytes, 100 may be of one job: ask for fewer images"):
        take(room, alone, 61)


def test_a_job_waits_for_the_bytes_of_others_and_then_goes_on(store: JobStore) -> None:
    room = Room(store)
    ended = add(store, "alice", 50, ended=1.0)
    job = add(store, "bob", 10)
    add(store, "carol", 30)
    take(room, job, 10)
    with pytest.raises(Wait, match="of all jobs would have 101 bytes, 100 may be") as waits:
        take(room, job, 11)
    assert (waits.value.lacks_room, waits.value.seconds > 1) == (True, True)
    assert "delete jobs of yours that have ended" in str(waits.value)
    with pytest.raises(Wait):  # known before more is made, which would be charged to its key
        room.check(job, job.spec(), job.state())
    store.remove(ended)
    assert room.check(job, job.spec(), job.state()) == job.state()
    take(room, job, 11)


def test_jobs_of_one_key_wait_for_its_own_alone(store: JobStore) -> None:
    room = Room(store)
    add(store, "alice", 50, ended=1.0)
    second, other = add(store, "alice"), add(store, "bob")
    with pytest.raises(Wait, match="of your jobs would have 61 bytes, 60 may be"):
        take(room, second, 11)
    take(room, other, 11)


def test_of_jobs_that_wait_for_each_other_the_younger_begins_again(store: JobStore) -> None:
    room = Room(store)
    old = add(store, "alice", 50, lacks_room=True)
    busy = add(store, "bob", 20)
    young = add(store, "carol", 30, lacks_room=True)
    with pytest.raises(Wait) as waits:  # the older one's stay
        take(room, young, 1)
    assert (waits.value.seconds > 1, old.state().num_bytes) == (True, 50)
    with young.claimed(), pytest.raises(Wait):  # another process makes it
        take(room, old, 1)
    assert young.state().num_bytes == 30
    with pytest.raises(Wait) as waits:
        take(room, old, 1)
    assert waits.value.seconds == 0
    begun = young.state()
    assert (begun.num_done, begun.num_bytes, begun.after) == (0, 0, old.id)
    assert young.archive_path.stat().st_size == 0
    assert busy.state().num_bytes == 20  # it may end, and its room come back
    take(room, old, 10)
    with pytest.raises(Wait, match="until an older job has ended"):
        room.check(young, young.spec(), young.state())
    old.write(State(status="done", num_bytes=50, ended=1.0))
    assert room.check(young, young.spec(), young.state()).after is None
