"""What the jobs of one process do and leave alone, without a server."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, cast

import pytest

from serving.api.app import jobs_of
from serving.errors import InvalidRequestProblem, OverloadedProblem, UnknownJobProblem
from serving.http.auth import AccessControl
from serving.http.rate_limit import RateLimiter
from serving.jobs import maker as maker_module
from serving.jobs import turns as turns_module
from serving.jobs.archives import Archive
from serving.jobs.maker import JobMaker
from serving.jobs.runner import JobRunner
from serving.jobs.store import Job, JobStore, Rows, Spec, State
from serving.jobs.turns import JobFailure, Turns, Wait
from serving.keys.key import GENERATE, METRICS, Key
from serving.requests.job import CheckedJob, JobRequest, _seeds
from serving.settings import Settings


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path / "jobs", max_jobs=9, max_bytes=1 << 20)


def add(store: JobStore, pixels: int = 64, owner: str | None = "alice") -> Job:
    seeds = [1, 2, 3]
    checked = CheckedJob("grey", 1, "aa", seeds, None, 1.0, "png", "tar", None, pixels)
    return store.add(checked, owner)


def runner_of(store: JobStore) -> JobRunner:
    return JobRunner(cast(Any, SimpleNamespace(settings=Settings())), store)


def test_only_folders_of_jobs_are_swept(store: JobStore) -> None:
    job = add(store)
    for name in (f".{'0' * 32}", ".ssh"):
        job.path.with_name(name).mkdir()
    store.sweep()
    assert {path.name for path in job.path.parent.iterdir()} == {"lock", ".ssh", job.id}


def test_one_key_leaves_room_to_others(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs", max_jobs=5, max_bytes=1 << 20, max_jobs_per_key=2)
    first = add(store)
    add(store)
    with pytest.raises(OverloadedProblem, match="key 'alice' has 2 jobs, 2 may be of one key"):
        add(store)
    for owner in ("bob", None, None):  # None: a server without keys has no shares
        add(store, owner=owner)
    store.remove(first)
    add(store)
    with pytest.raises(OverloadedProblem, match="there are 5 jobs, 5 may be"):
        add(store, owner="bob")


def test_unless_the_operator_says_otherwise_one_key_has_half(tmp_path: Path) -> None:
    settings = Settings(jobs_folder=tmp_path / "jobs", max_jobs=5, max_jobs_bytes=101)
    store = jobs_of(settings)
    assert store is not None
    assert [store.share_bytes(owner) for owner in ("alice", None)] == [51, 101]
    for _ in range(3):
        filled = add(store)
    with pytest.raises(OverloadedProblem, match="key 'alice' has 3 jobs, 3 may be of one key"):
        add(store)
    store.remove(filled)
    filled = add(store)
    filled.archive_path.write_bytes(bytes(51))
    store.remove(store.jobs()[0])
    words = "key 'alice' have 51 bytes, 51 may be of one key; delete those of yours"
    with pytest.raises(OverloadedProblem, match=words):
        add(store)
    add(store, owner="bob")
    more = dataclasses.replace(settings, max_jobs_per_key=5, max_jobs_bytes_per_key=90)
    store = jobs_of(more)
    assert store is not None
    assert store.share_bytes("alice") == 90
    add(store)


@pytest.mark.parametrize("name", ["job.json", "state.json"])
def test_a_damaged_job_is_none_and_the_others_go_on(store: JobStore, name: str) -> None:
    damaged, other = add(store), add(store)
    (damaged.path / name).write_bytes(b"{}" if name == "job.json" else b"\0")
    with pytest.raises(UnknownJobProblem):
        (damaged.spec if name == "job.json" else damaged.state)()
    assert other.id in [job.id for job in store.jobs()]
    assert [job.id for job, _ in runner_of(store)._look()[0]] == [other.id]


def test_a_run_has_no_more_pixels_than_a_request_may_ask_for(store: JobStore) -> None:
    service: Any = SimpleNamespace(settings=Settings(max_image_pixels=1000, max_batch_rows=16))
    maker = JobMaker(service, store)
    sizes = [maker._chunk(None, add(store, pixels).spec()) for pixels in (10, 100, 5000)]
    assert sizes == [16, 10, 1]


def test_while_the_keys_cannot_be_read_a_job_waits(store: JobStore) -> None:
    """It fails where its key is gone; of several keys of a name one may be for something else."""
    spec = add(store).spec()
    access = AccessControl({}, RateLimiter(-1))
    service: Any = SimpleNamespace(settings=Settings(), access=access, keys_fault="away")
    maker = JobMaker(service, store)
    keys = [
        Key("alice", scope.encode(), scopes=frozenset((scope,))) for scope in (METRICS, GENERATE)
    ]
    with pytest.raises(Wait, match="the file of API keys can't be read"):
        maker._key(spec)
    access.replace({key.digest: key for key in keys})
    service.keys_fault = None
    assert maker._key(spec) == keys[1]
    access.replace({keys[0].digest: keys[0]})
    with pytest.raises(JobFailure, match="'alice' was revoked or has expired"):
        maker._key(spec)


def turns(runner: JobRunner, made: Callable[[Job], Awaitable[State]], num: int) -> list[str]:
    """Lets a runner have some turns; whose jobs had them."""
    names: list[str] = []

    async def go_on(job: Job, spec: Spec, state: State) -> State:
        names.append(str(spec.owner))
        return await made(job)

    async def all_of_them() -> None:
        for _ in range(num):
            await runner._turn()

    runner._maker.go_on = go_on  # type: ignore[method-assign]
    asyncio.run(all_of_them())
    return names


@pytest.mark.parametrize("is_owners", [True, False])
def test_a_job_that_waits_holds_no_other_up(store: JobStore, is_owners: bool) -> None:
    """Neither its place nor its claim: another process may go on with it when it can."""
    first, second = add(store), add(store)
    other = add(store, owner="bob")
    freely: list[bool] = []

    async def made(job: Job) -> State:
        if job.id == first.id:
            raise Wait("its key's rate", 60.0, is_owners=is_owners)
        with first.claimed() as is_free:
            freely.append(is_free)
        return State(status="running")

    names = turns(runner_of(store), made, 5)
    if is_owners:  # nothing of alice's can go on
        assert names == ["alice", "bob", "bob", "bob", "bob"]
    else:
        assert names == ["alice", "bob", "alice", "bob", "alice"]
    assert freely == [True] * 4
    assert {job.id for job, _ in runner_of(store)._look()[0]} == {first.id, second.id, other.id}


def test_a_job_that_waited_goes_on_not_before_its_time(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, now = add(store), [100.0]
    monkeypatch.setattr(turns_module.time, "monotonic", lambda: now[0])
    order = Turns()
    order.put_aside(job, "alice", Wait("", 5.0))
    now[0] = 104.9
    assert order.order([(job, "alice")]) == []
    now[0] = 105.0
    assert order.order([(job, "alice")]) == [(job, "alice")]


def test_owners_take_turns_and_each_has_its_oldest_job_made_first(store: JobStore) -> None:
    jobs = [add(store), add(store), add(store, owner="bob"), add(store, owner="carol")]
    seen: list[str] = []

    async def made(job: Job) -> State:
        seen.append(job.id)
        return State(status="running")

    names = turns(runner_of(store), made, 6)
    assert names == ["alice", "bob", "carol"] * 2
    assert jobs[1].id not in seen


def test_a_job_is_looked_for_while_its_model_is_away_and_as_long_as_it_takes(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where another process has made some of it meanwhile."""
    now = [0.0]
    monkeypatch.setattr(maker_module.time, "monotonic", lambda: now[0])
    job, maker = add(store), JobMaker(cast(Any, SimpleNamespace(settings=Settings())), store)
    found = []
    for seconds, num_done in ((0, 0), (119, 0), (121, 0), (121, 5), (240, 5), (242, 5)):
        now[0] = float(seconds)
        found.append(maker._may_come(job, State(num_done=num_done)))
    assert found == [True, True, False, True, True, False]


@pytest.mark.parametrize("waits", [False, True])
def test_a_slice_of_a_job_ends_with_what_was_made_written_down(
    store: JobStore, monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    """When its time is over, or it must wait: else it would be made, and charged, again."""
    now = [0.0]
    monkeypatch.setattr(maker_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(maker_module, "_SAVE_S", 100.0)
    job, maker = add(store), JobMaker(cast(Any, SimpleNamespace(settings=Settings())), store)

    async def chunk(
        file: BinaryIO, archive: Archive, job: Job, spec: Spec, rows: Rows, state: State
    ) -> State:
        if waits and state.num_done == 2:
            raise Wait("its rate", 1.0)
        file.write(b"x")
        now[0] += 0.0 if waits else maker_module.SLICE_S / 2
        return State(status="running", num_done=state.num_done + 1, num_bytes=state.num_bytes + 1)

    monkeypatch.setattr(maker, "_go_on_a_chunk", chunk)
    slice = maker.go_on(job, job.spec(), job.state())
    if waits:
        with pytest.raises(Wait):
            asyncio.run(slice)
    else:
        asyncio.run(slice)
    state = job.state()
    assert (state.status, state.num_done, state.num_bytes) == ("running", 2, 2)
    assert state.problem == ("its rate" if waits else None)
    assert job.archive_path.read_bytes() == b"xx"


@pytest.mark.parametrize("error", [OSError("away"), ValueError("/srv/secret")])
def test_what_was_made_outlives_a_fault_and_no_path_is_told(
    store: JobStore, error: Exception
) -> None:
    job, runner = add(store), runner_of(store)
    done = State(status="done", num_done=3, num_bytes=5, ended=1.0)
    job.write(done)
    asyncio.run(runner._note_fault(job, error))
    assert job.state() == done
    job.write(State(status="running"))
    asyncio.run(runner._note_fault(job, ValueError("/srv/secret")))
    assert job.state().problem == "an unexpected error; it is tried again"


def test_refusals_repeat_no_more_than_a_line() -> None:
    for seeds in ("x" * 100_000, ["1"] * 11):
        with pytest.raises(InvalidRequestProblem) as refused:
            _seeds(JobRequest(seeds=seeds), 10)  # type: ignore[arg-type]
        assert len(str(refused.value.detail)) < 200
