"""What the jobs of one process do and leave alone, without a server."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from serving.errors import InvalidRequestProblem, OverloadedProblem, UnknownJobProblem
from serving.http.auth import AccessControl
from serving.http.rate_limit import RateLimiter
from serving.jobs import runner as module
from serving.jobs.runner import JobFailure, JobRunner
from serving.jobs.store import Job, JobStore, State
from serving.keys.key import GENERATE, METRICS, Key
from serving.requests.job import CheckedJob, JobRequest, _seeds, check_webhook
from serving.settings import Settings


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path / "jobs", max_jobs=9, max_bytes=1 << 20)


def add(store: JobStore, pixels: int = 64, owner: str | None = "alice") -> Job:
    seeds = [1, 2, 3]
    checked = CheckedJob("grey", 1, "aa", seeds, None, 1.0, "png", "tar", None, pixels)
    return store.add(checked, owner)


def made(store: JobStore, **service: Any) -> JobRunner:
    return JobRunner(SimpleNamespace(**{"settings": Settings()} | service), store)  # type: ignore[arg-type]


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


@pytest.mark.parametrize("name", ["job.json", "state.json"])
def test_a_damaged_job_is_none_and_the_others_go_on(store: JobStore, name: str) -> None:
    damaged, other = add(store), add(store)
    (damaged.path / name).write_bytes(b"{}" if name == "job.json" else b"\0")
    with pytest.raises(UnknownJobProblem):
        (damaged.spec if name == "job.json" else damaged.state)()
    assert other.id in [job.id for job in store.jobs()]
    assert [job.id for job in made(store)._look()] == [other.id]


def test_a_run_has_no_more_pixels_than_a_request_may_ask_for(store: JobStore) -> None:
    runner = made(store, settings=Settings(max_image_pixels=1000, max_batch_rows=16))
    sizes = [runner._chunk(None, add(store, pixels).spec()) for pixels in (10, 100, 5000)]
    assert sizes == [16, 10, 1]


def test_while_the_keys_cannot_be_read_a_job_waits(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails where its key is gone; of several keys of a name one may be for something else."""
    monkeypatch.setattr(module, "_HELD_UP_S", 0.01)
    job, state = add(store), State(status="running")
    access = AccessControl({}, RateLimiter(-1))
    runner = made(store, access=access, keys_fault="away")
    scopes = (METRICS, GENERATE)
    keys = [Key("alice", scope.encode(), scopes=frozenset((scope,))) for scope in scopes]

    async def wait() -> None:
        waiting = asyncio.create_task(runner._key(job, job.spec(), state))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        assert job.state().problem == "the file of API keys can't be read"
        access.replace({key.digest: key for key in keys})
        runner._service.keys_fault = None  # type: ignore[misc]
        assert await waiting == keys[1]
        access.replace({keys[0].digest: keys[0]})
        with pytest.raises(JobFailure, match="'alice' was revoked or has expired"):
            await runner._key(job, job.spec(), state)

    asyncio.run(wait())


@pytest.mark.parametrize("error", [OSError("away"), ValueError("/srv/secret")])
def test_what_was_made_outlives_a_fault_and_no_path_is_told(
    store: JobStore, error: Exception
) -> None:
    job, runner = add(store), made(store)
    done = State(status="done", num_done=3, num_bytes=5, ended=1.0)
    job.write(done)
    asyncio.run(runner._note_fault(job, error))
    assert job.state() == State(status="done", num_done=3, num_bytes=5, ended=1.0, told=True)
    job.write(State(status="running"))
    asyncio.run(runner._note_fault(job, ValueError("/srv/secret")))
    assert job.state().problem == "an unexpected error; it is tried again"


def test_hosts_of_webhooks_have_no_case() -> None:
    check_webhook("https://HOOKS.example.org/x", ("Hooks.example.org",))
    check_webhook("https://hooks.example.org:8443/x", ("Hooks.example.org:8443",))
    for url in ("https://hooks.example.org:1/", "https://hooks.example.org@evil/", "https:///x"):
        with pytest.raises(InvalidRequestProblem):
            check_webhook(url, ("Hooks.example.org:8443",))


def test_refusals_repeat_no_more_than_a_line() -> None:
    for seeds in ("x" * 100_000, ["1"] * 11):
        with pytest.raises(InvalidRequestProblem) as refused:
            _seeds(JobRequest(seeds=seeds), 10)  # type: ignore[arg-type]
        assert len(str(refused.value.detail)) < 200
