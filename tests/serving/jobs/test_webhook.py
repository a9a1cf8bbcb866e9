"""Webhooks that are slow, endless or no HTTP: each costs bounded time, and nobody else anything."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from serving.jobs.exchange import MAX_HEAD_BYTES, TIMEOUT_S, ExchangeError, post
from serving.jobs.store import Job, JobStore, State
from serving.jobs.webhook import MOST_AT_ONCE, Webhooks
from serving.requests.job import CheckedJob

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Hook:
    """A webhook: what it got, and who is still connected."""

    def __init__(self, answer: bytes | Answer) -> None:
        self._answer = answer
        self.got: list[bytes] = []
        self.num_open = 0
        self.most_open = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_open += 1
        self.most_open = max(self.most_open, self.num_open)
        try:
            with contextlib.suppress(OSError, EOFError):
                self.got.append(await reader.readuntil(b"\r\n\r\n"))
                if isinstance(self._answer, bytes):
                    writer.write(self._answer)
                    await writer.drain()
                else:
                    await self._answer(reader, writer)
        finally:
            self.num_open -= 1
            writer.close()


@contextlib.asynccontextmanager
async def hooked(answer: bytes | Answer) -> AsyncIterator[Hook]:
    hook = Hook(answer)
    server = await asyncio.start_server(hook.serve, "127.0.0.1", 0)
    hook.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x?y=1"
    try:
        yield hook
    finally:
        server.close()


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def repeated(first: bytes, piece: bytes, pause_s: float = 0.0) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while not writer.is_closing():
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)

    return answer


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()  # until the other side has gone


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (OK, 200),
        (b"HTTP/1.0 204\n\n", 204),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", 302),
        (b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 500 Oh no\r\n\r\n", 500),
    ],
)
def test_the_status_of_an_answer_is_given(answer: bytes, status: int) -> None:
    async def run() -> None:
        async with hooked(answer) as hook:
            assert await post(hook.url, b"{}") == status
            (head,) = hook.got
            assert head.startswith(b"POST /x?y=1 HTTP/1.1\r\nHost: 127.0.0.1:")
            assert b"\r\nContent-Length: 2\r\n" in head

    asyncio.run(run())


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (silence, "did not answer within 0.3 s"),
        (repeated(b"HTTP/1.1 200 OK\r\nX: ", b"a", 0.02), "did not answer within 0.3 s"),
        (repeated(b"HTTP/1.1 200 OK\r\nX: ", b"a" * 1000), "limit|over"),
        (repeated(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 100), f"over {MAX_HEAD_BYTES} bytes"),
        (repeated(b"", b"HTTP/1.1 100 Go on\r\n\r\n" * 100), f"over {MAX_HEAD_BYTES} bytes"),
        (b"this is no HTTP\r\n\r\n", "no HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\n", "without an answer"),
        (b"", "without an answer"),
    ],
)
def test_what_never_ends_or_is_no_answer_ends_with_its_connection(
    answer: bytes | Answer, words: str
) -> None:
    async def run() -> None:
        async with hooked(answer) as hook:
            with pytest.raises(ExchangeError, match=words):
                await post(hook.url, b"{}", 0.3 if "within" in words else 20.0)
            await until(lambda: hook.num_open == 0)

    asyncio.run(run())


def test_a_handshake_has_the_same_deadline() -> None:
    async def run() -> None:
        async with hooked(silence) as hook:
            with pytest.raises(ExchangeError, match=r"within 0\.3 s"):
                await post(hook.url.replace("http:", "https:"), b"{}", 0.3)

    asyncio.run(run())


def test_who_refuses_the_connection_is_told() -> None:
    with pytest.raises(ExchangeError, match=r"[Cc]onnect"):
        asyncio.run(post("http://127.0.0.1:1/", b"{}"))


def test_proxies_of_the_environment_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with hooked(OK) as proxy:
            host = proxy.url.split("/")[2]
            monkeypatch.setenv("http_proxy", f"http://me:pass@{host}")
            monkeypatch.setenv("https_proxy", host)
            monkeypatch.setenv("no_proxy", "inside.example")
            assert await post("http://hooks.example/x?y", b"{}") == 200
            assert proxy.got[0].startswith(b"POST http://hooks.example/x?y HTTP/1.1\r\n")
            assert b"\r\nProxy-Authorization: Basic bWU6cGFzcw==\r\n" in proxy.got[0]
            with pytest.raises(ExchangeError):  # it speaks no TLS after that
                await post("https://[2001:db8::7]/x", b"{}", 5.0)
            assert proxy.got[1].startswith(b"CONNECT [2001:db8::7]:443 HTTP/1.1\r\n")
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            assert await post(proxy.url, b"{}") == 200
            assert proxy.got[2].startswith(b"POST /x?y=1 HTTP/1.1\r\n")
        async with hooked(b"HTTP/1.1 403 No\r\n\r\n") as proxy:
            monkeypatch.setenv("https_proxy", proxy.url)
            with pytest.raises(ExchangeError, match="the proxy answered 403"):
                await post("https://hooks.example/", b"{}")

    asyncio.run(run())


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path / "jobs", max_jobs=20, max_bytes=100)


def add(store: JobStore, url: str) -> Job:
    job = store.add(CheckedJob("grey", 1, "aa", [1], None, 1.0, "png", "tar", url, 64), None)
    job.write(State(status="done", ended=1.0))
    return job


def webhooks() -> Webhooks:
    return Webhooks(("127.0.0.1",), 60.0)


def test_few_are_told_at_once_and_the_end_of_a_job_ends_it(store: JobStore) -> None:
    async def run() -> None:
        async with hooked(silence) as slow, hooked(OK) as quick:
            jobs = [add(store, slow.url) for _ in range(MOST_AT_ONCE + 3)]
            telling = webhooks()
            telling.start(jobs)
            telling.start(jobs)
            await until(lambda: slow.num_open == MOST_AT_ONCE)
            with jobs[0].claimed() as is_free:  # no second process tells it
                assert not is_free
            for job in jobs:
                store.remove(job)
            await until(lambda: slow.num_open == 0, TIMEOUT_S / 2)
            other = add(store, quick.url)
            await until(lambda: not telling._tasks)
            telling.start([other])
            await until(lambda: other.state().told)
            assert (slow.most_open, len(quick.got)) == (MOST_AT_ONCE, 1)

    asyncio.run(run())


def test_the_end_of_the_process_ends_them_and_the_next_one_tells(store: JobStore) -> None:
    async def run() -> None:
        async with hooked(silence) as hook:
            job = add(store, hook.url)
            telling = webhooks()
            telling.start([job])
            await until(lambda: hook.num_open == 1)
            async with asyncio.timeout(5):
                await telling.end()
            await until(lambda: hook.num_open == 0)
            assert not job.state().told
            with job.claimed() as is_free:
                assert is_free

    asyncio.run(run())


def test_who_was_never_told_is_before_those_that_fail(store: JobStore) -> None:
    async def run() -> None:
        async with hooked(b"HTTP/1.1 500 No\r\n\r\n") as failing, hooked(silence) as slow:
            tried, new = add(store, failing.url), [add(store, slow.url) for _ in range(9)]
            telling = webhooks()
            telling.start([tried])
            await until(lambda: not telling._tasks)
            assert telling._tries(tried)[0] == 1
            telling._tried[tried.id] = (1, 0.0)  # its pause is over
            telling.start([tried, *new])
            assert tried.id not in telling._tasks
            assert len(telling._tasks) == MOST_AT_ONCE
            await telling.end()

    asyncio.run(run())


def test_what_was_told_but_not_written_down_is_not_told_again(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with hooked(OK) as hook:
            job = add(store, hook.url)
            telling = webhooks()

            def full(self: Job, state: State) -> None:
                raise OSError("no space")

            with monkeypatch.context() as disk:
                disk.setattr(Job, "write", full)
                telling.start([job])
                await until(lambda: not telling._tasks)
            await until(lambda: (telling.start([job]), job.state().told)[1])
            assert len(hook.got) == 1
            await until(lambda: not telling._tasks)

    asyncio.run(run())
